// Requests as the user tower's tensors.
#pragma once

#include <vector>

#include "request.hpp"
#include "towers.hpp"

namespace crosstower {

// The rows `first` up to, not including, `end` of `requests`.
UserInputs user_inputs(const std::vector<Request>& requests, size_t first, size_t end, const Manifest& manifest);

}  // namespace crosstower
