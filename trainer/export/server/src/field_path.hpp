// Where in a request a value stands: requests[0].history.hist_item[3].
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace crosstower {

// Names in messages: a stranger's field name may be megabytes long.
inline std::string shortened(std::string_view text) {
  constexpr size_t kMost = 64;
  return text.size() <= kMost ? std::string(text) : std::string(text.substr(0, kMost)) + "…";
}

// A chain of names and positions on the stack; the text is made only for an error.
class FieldPath {
 public:
  explicit FieldPath(std::string_view name) : name_(name) {}

  FieldPath member(std::string_view name) const { return FieldPath(this, name, 0); }
  FieldPath element(size_t position) const { return FieldPath(this, {}, position); }

  std::string text() const {
    if (parent_ == nullptr) return shortened(name_);
    if (name_.data() == nullptr) return parent_->text() + "[" + std::to_string(position_) + "]";
    const std::string before = parent_->text();
    return before.empty() ? shortened(name_) : before + "." + shortened(name_);
  }

 private:
  FieldPath(const FieldPath* parent, std::string_view name, size_t position) : parent_(parent), name_(name), position_(position) {}

  const FieldPath* parent_ = nullptr;
  std::string_view name_;
  size_t position_ = 0;
};

}  // namespace crosstower
