// The bodies of /v1/score and /v1/retrieve, validated.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "manifest.hpp"
#include "options.hpp"

namespace crosstower {

enum class Route { kScore, kRetrieve };

// One user and what is asked about them.
struct Request {
  std::vector<std::vector<int64_t>> user;     // ids of each feature, in the manifest's order
  std::vector<std::vector<int64_t>> history;  // ids of each feature, oldest behaviour first, all of one length
  int64_t row_id = 0;                         // keys the noise
  std::vector<int64_t> candidates;            // score: item ids, in the caller's order
  int64_t top_k = 0;                          // score: 0 for no ranking
};

// Reads a body; RequestError 400 names the field that is missing, unknown, of a wrong type, out of range, too long or too short.
std::vector<Request> parse_requests(std::string_view body, Route route, const Manifest& manifest, const Limits& limits);

}  // namespace crosstower
