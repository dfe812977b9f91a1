// What is refused before a body is read, and how a body is read within bounds.
#pragma once

#include <httplib.h>

#include <cstdint>
#include <string>

#include "deadline.hpp"
#include "options.hpp"

namespace crosstower {

// The routes that exist; anything else counts as "other" in the metrics.
std::string route_label(const std::string& path);

// Checks method, path and headers of a request whose body is still on the wire; RequestError 4xx or 501.
void check_head(const httplib::Request& request, const Limits& limits);

// The whole body; RequestError 413 where it is larger than max_body, 408 where it does not arrive in time, 400 where it ends early.
std::string read_body(const httplib::ContentReader& reader, const Limits& limits, const Deadline& deadline);

// Answers `error` and, where the request's body may still be on the wire, closes the connection, as what is left of the body would be
// taken for the next request.
void answer_error(const httplib::Request& request, const RequestError& error, bool body_was_read, httplib::Response* response);

}  // namespace crosstower
