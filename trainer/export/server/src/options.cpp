#include "options.hpp"

#include <charconv>
#include <functional>
#include <limits>
#include <map>
#include <thread>
#include <vector>

#include "errors.hpp"

namespace crosstower {
namespace {

int64_t integer(const std::string& name, const std::string& text, int64_t low, int64_t high) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < low || value > high) {
    throw UserError(name + "=" + text + ", expected an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

struct Option {
  std::string value;  // what the help calls the value; empty: a switch without one
  std::string text;
  std::function<void(Options&, const std::string& name, const std::string& value)> set;
};

template <typename Number, typename Part>
Option number(Part part, int64_t low, int64_t high, const std::string& text) {
  return {"N", text, [=](Options& options, const std::string& name, const std::string& value) {
            part(options) = static_cast<Number>(integer(name, value, low, high));
          }};
}

const std::map<std::string, Option>& known_options() {
  constexpr int64_t kMany = 1'000'000;
  static const std::map<std::string, Option> options = {
      {"--artefact", {"DIR", "artefact to serve, or a symbolic link to it; required",
                      [](Options& o, const std::string&, const std::string& value) { o.artefact = value; }}},
      {"--host", {"HOST", "address to bind (default 127.0.0.1)",
                  [](Options& o, const std::string&, const std::string& value) { o.host = value; }}},
      {"--port", number<int>([](Options& o) -> int& { return o.port; }, 0, 65'535,
                             "port to bind (default 8080); 0: any free one, printed")},
      {"--workers", number<int64_t>([](Options& o) -> int64_t& { return o.workers; }, 1, 1'024,
                                    "requests computed at the same time (default: one per core)")},
      {"--threads", number<int>([](Options& o) -> int& { return o.threads; }, 1, 256,
                                "torch's threads within a request (default 1)")},
      {"--connections", number<int64_t>([](Options& o) -> int64_t& { return o.connections; }, 1, 4'096,
                                        "connections served at the same time (default 64); further ones wait")},
      {"--keep-alive-s", number<int64_t>([](Options& o) -> int64_t& { return o.keep_alive_s; }, 1, 3'600,
                                         "seconds after which an idle connection is closed (default 5)")},
      {"--max-body", number<int64_t>([](Options& o) -> int64_t& { return o.limits.max_body; }, 1'024, int64_t{1} << 30,
                                     "bytes of a body (default 16777216)")},
      {"--max-batch", number<int64_t>([](Options& o) -> int64_t& { return o.limits.max_batch; }, 1, kMany,
                                      "requests in a body (default 256)")},
      {"--max-candidates", number<int64_t>([](Options& o) -> int64_t& { return o.limits.max_candidates; }, 1, kMany,
                                           "candidates, or items to retrieve, of a request (default 5000)")},
      {"--max-history", number<int64_t>([](Options& o) -> int64_t& { return o.limits.max_history; }, 1, kMany,
                                        "behaviours of a request (default: what the artefact allows; more than that never)")},
      {"--timeout-ms", number<int64_t>([](Options& o) -> int64_t& { return o.limits.timeout_ms; }, 1, 3'600'000,
                                       "milliseconds for reading and answering a request (default 10000)")},
      {"--log-requests", {"", "log every request, not just the refused ones",
                          [](Options& o, const std::string&, const std::string&) { o.log_requests = true; }}},
      {"--help", {"", "show this text", [](Options& o, const std::string&, const std::string&) { o.help = true; }}},
  };
  return options;
}

}  // namespace

std::string usage() {
  std::string text = "crosstower_server --artefact DIR [options]\n\n";
  for (const auto& [name, option] : known_options()) {
    const std::string left = "  " + name + (option.value.empty() ? "" : " " + option.value);
    text += left + std::string(left.size() < 24 ? 24 - left.size() : 1, ' ') + option.text + "\n";
  }
  return text + "\nSIGHUP: verify and swap to the artefact that --artefact names now. SIGTERM, SIGINT: finish and exit.\n";
}

Options parse_options(int argc, const char* const* argv) {
  Options options;
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (size_t i = 0; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    const std::string name = words[i].substr(0, equals);
    const auto found = known_options().find(name);
    if (found == known_options().end()) throw UserError("unknown option " + name + "; --help lists the known ones");
    const Option& option = found->second;
    if (option.value.empty()) {
      if (equals != std::string::npos) throw UserError(name + " takes no value");
      option.set(options, name, "");
    } else if (equals != std::string::npos) {
      option.set(options, name, words[i].substr(equals + 1));
    } else if (i + 1 < words.size()) {
      option.set(options, name, words[++i]);
    } else {
      throw UserError(name + " needs a value: " + name + " " + option.value);
    }
  }
  if (options.artefact.empty() && !options.help) throw UserError("--artefact DIR is required: the folder that trainer.export wrote");
  if (options.workers == 0) options.workers = std::max(1u, std::thread::hardware_concurrency());
  return options;
}

}  // namespace crosstower
