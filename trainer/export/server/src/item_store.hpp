// The item store on disk, looked up without reading it whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "mapped_file.hpp"

namespace crosstower {

// M items, K candidates, H heads, P head width.
class ItemStore {
 public:
  // Takes item_vectors.bin and, where the shape says so, item_scales.bin and item_index.bin out of `files`. ArtefactError where a file's
  // size is not the shape's, or an item's query is not below num_queries.
  ItemStore(const StoreShape& shape, std::map<std::string, MappedFile>* files);

  // float32 [1, K, H, P]: only the candidates' rows are read and, where they are float16 or int8, dequantised.
  at::Tensor vectors(const std::vector<int64_t>& candidates) const;

  // int64 [1, K]: each candidate's meta query; 0 for models without.
  at::Tensor queries(const std::vector<int64_t>& candidates) const;

  // float32 [count, H·P] of the items from `first` on; float32 stores are not copied.
  at::Tensor block(int64_t first, int64_t count) const;

  const StoreShape& shape() const { return shape_; }

 private:
  int64_t row_size() const { return shape_.heads * shape_.width; }
  int64_t query_of(int64_t item) const;
  at::Tensor dequantised(at::Tensor stored_RW, const std::vector<float>& scales) const;

  StoreShape shape_;
  MappedFile vectors_;
  MappedFile scales_;
  MappedFile index_;
};

}  // namespace crosstower
