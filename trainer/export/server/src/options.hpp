// What the command line says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace crosstower {

// Bounds of what one request may ask for; more is refused, nothing is cut down to size.
struct Limits {
  int64_t max_body = 16 << 20;     // bytes of a request's body
  int64_t max_batch = 256;         // requests in one body
  int64_t max_candidates = 5'000;  // candidates, or items to retrieve, of one request
  int64_t max_history = 0;         // behaviours of one request; 0: as many as the artefact's manifest allows
  int64_t timeout_ms = 10'000;     // from a request's headers to its answer
};

struct Options {
  std::string artefact;           // folder, or a symbolic link to one that may move before SIGHUP
  std::string host = "127.0.0.1";
  int port = 8080;                // 0: any free one, printed
  int64_t workers = 0;            // requests computed at the same time; 0: one per core
  int threads = 1;                // torch's threads within one request
  int64_t connections = 64;       // connections served at the same time; further ones wait
  int64_t keep_alive_s = 5;       // an idle connection is closed after this
  bool log_requests = false;      // a log line for every request, not just for the refused ones
  bool help = false;
  Limits limits;
};

// Reads `--name value` and `--name=value`; UserError names the option, its value and what is allowed.
Options parse_options(int argc, const char* const* argv);

// The text of --help.
std::string usage();

}  // namespace crosstower
