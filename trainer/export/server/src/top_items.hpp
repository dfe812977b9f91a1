// The best of many scores; equal scores are ordered by their position, the lower one first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace crosstower {

struct Scored {
  float score;
  int64_t position;  // of a candidate in its request, or an item id
};

inline bool better(const Scored& a, const Scored& b) { return a.score != b.score ? a.score > b.score : a.position < b.position; }

// Keeps the best `size` of the scores that it is shown, in any order; a score that is not a number must not be shown.
class TopItems {
 public:
  explicit TopItems(int64_t size) : size_(static_cast<size_t>(size)) {}

  void see(const Scored& one) {
    if (best_.size() == size_) {
      if (best_.empty() || !better(one, best_.front())) return;
      std::pop_heap(best_.begin(), best_.end(), better);
      best_.pop_back();
    }
    best_.push_back(one);
    std::push_heap(best_.begin(), best_.end(), better);  // the worst is in front
  }

  // Best first; call once, at the end.
  std::vector<Scored> sorted() {
    std::sort_heap(best_.begin(), best_.end(), better);
    return std::move(best_);
  }

 private:
  size_t size_;
  std::vector<Scored> best_;
};

}  // namespace crosstower
