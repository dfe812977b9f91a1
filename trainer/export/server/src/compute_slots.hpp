// How many requests are computed at the same time: connections may be many, cores are few.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "deadline.hpp"
#include "errors.hpp"

namespace crosstower {

class ComputeSlots {
 public:
  explicit ComputeSlots(int64_t count) : free_(count) {}

  // Holds one slot until it is destroyed.
  class Held {
   public:
    explicit Held(ComputeSlots* slots) : slots_(slots) {}
    ~Held() {
      {
        const std::lock_guard<std::mutex> lock(slots_->mutex_);
        ++slots_->free_;
      }
      slots_->freed_.notify_one();
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    ComputeSlots* slots_;
  };

  // Waits for a slot; RequestError 503 when the deadline passes first.
  Held wait(const Deadline& deadline) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!freed_.wait_until(lock, deadline.end(), [this] { return free_ > 0; })) {
      throw RequestError(503, "requests", "the server is busy: no worker became free in time; try again later");
    }
    --free_;
    return Held(this);
  }

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  int64_t free_;
};

}  // namespace crosstower
