// SHA-256 by OpenSSL's libcrypto, which cpp-httplib's Debian package needs anyway.
#pragma once

#include <string>
#include <string_view>

namespace crosstower {

// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace crosstower
