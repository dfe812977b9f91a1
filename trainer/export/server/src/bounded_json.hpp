// JSON from strangers.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace crosstower {

// Parses `text`; RequestError 400 where it is not JSON, nests deeper than any request of ours, or names a field of an object twice.
// The depth is checked while parsing, so a deep text costs no more than its first few characters.
nlohmann::json parse_bounded_json(std::string_view text);

}  // namespace crosstower
