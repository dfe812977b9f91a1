// Counters of what the server did, in Prometheus' text format.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "manifest.hpp"

namespace crosstower {

class Metrics {
 public:
  // `route` is one of few: a path of a stranger's choice must not become a series of its own.
  void count_request(const std::string& route, int status, double seconds);
  void count_swap(bool succeeded);

  // The whole page; `manifest` is the artefact that is served now.
  std::string page(const Manifest& manifest) const;

 private:
  static constexpr std::array<double, 13> kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10};

  struct Latency {
    std::array<uint64_t, kBounds.size() + 1> counts{};  // the last one: above every bound
    double sum = 0;
  };

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> requests_;
  std::map<std::string, Latency> latency_;
  uint64_t swaps_ = 0;
  uint64_t failed_swaps_ = 0;
};

}  // namespace crosstower
