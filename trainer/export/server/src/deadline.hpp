// The moment by which a request must be answered.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "errors.hpp"

namespace crosstower {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Deadline(int64_t timeout_ms)
      : timeout_ms_(timeout_ms), end_(Clock::now() + std::chrono::milliseconds(timeout_ms)) {}

  Clock::time_point end() const { return end_; }
  bool passed() const { return Clock::now() >= end_; }

  // RequestError 503 once it has passed; called between steps that each take a fraction of a second.
  void check() const {
    if (passed()) {
      throw RequestError(503, "requests", "not answered within " + std::to_string(timeout_ms_) + " ms (--timeout-ms); send fewer requests or candidates");
    }
  }

 private:
  int64_t timeout_ms_;
  Clock::time_point end_;
};

}  // namespace crosstower
