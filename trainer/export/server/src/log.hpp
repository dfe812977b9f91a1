// One line of JSON on stderr per event.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace crosstower {

// {"time": "2026-01-31T12:00:00.123Z", "level": level, "event": event, …fields}; lines of several threads don't mix.
void log_line(const std::string& level, const std::string& event, const nlohmann::ordered_json& fields);

}  // namespace crosstower
