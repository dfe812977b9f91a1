// B rows, U user features, H history features, J behaviours of all rows
#include "user_inputs.hpp"

#include <ATen/ops/tensor.h>

namespace crosstower {

UserInputs user_inputs(const std::vector<Request>& requests, size_t first, size_t end, const Manifest& manifest) {
  const auto rows = static_cast<int64_t>(end - first);
  std::vector<int64_t> user_values, user_lengths, history_values, history_lengths, row_ids;
  for (size_t feature = 0; feature < manifest.user.size(); ++feature) {
    for (size_t row = first; row < end; ++row) {
      const std::vector<int64_t>& ids = requests[row].user[feature];
      user_values.insert(user_values.end(), ids.begin(), ids.end());
      user_lengths.push_back(static_cast<int64_t>(ids.size()));
    }
  }
  int64_t behaviours = 0;
  for (size_t row = first; row < end; ++row) {
    const std::vector<std::vector<int64_t>>& history = requests[row].history;
    history_lengths.push_back(history.empty() ? 0 : static_cast<int64_t>(history[0].size()));
    behaviours += history_lengths.back();
    row_ids.push_back(requests[row].row_id);
  }
  for (size_t feature = 0; feature < manifest.history.size(); ++feature) {
    for (size_t row = first; row < end; ++row) {
      const std::vector<int64_t>& ids = requests[row].history[feature];
      history_values.insert(history_values.end(), ids.begin(), ids.end());
    }
  }
  const auto features = [](size_t count) { return static_cast<int64_t>(count); };
  return {at::tensor(user_values, at::kLong), at::tensor(user_lengths, at::kLong).view({features(manifest.user.size()), rows}),
          at::tensor(history_values, at::kLong).view({features(manifest.history.size()), behaviours}),
          at::tensor(history_lengths, at::kLong), at::tensor(row_ids, at::kLong)};
}

}  // namespace crosstower
