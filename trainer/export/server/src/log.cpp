#include "log.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace crosstower {
namespace {

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  const std::string fraction = std::to_string(1'000 + milliseconds).substr(1);
  return std::string(text.data()) + "." + fraction + "Z";
}

}  // namespace

void log_line(const std::string& level, const std::string& event, const nlohmann::ordered_json& fields) {
  nlohmann::ordered_json line = {{"time", utc_now()}, {"level", level}, {"event", event}};
  line.update(fields);
  // replace: a path on the wire need not be UTF-8
  const std::string text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  std::fwrite(text.data(), 1, text.size(), stderr);  // one call: stderr's lock keeps the line whole
}

}  // namespace crosstower
