// R rows that were asked for, W = H·P numbers of a row
#include "item_store.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstring>

#include "errors.hpp"

namespace crosstower {
namespace {

at::ScalarType scalar_type(VectorType type) {
  if (type == VectorType::kFloat32) return at::kFloat;
  return type == VectorType::kFloat16 ? at::kHalf : at::kChar;
}

MappedFile take(const std::string& name, int64_t items, int64_t bytes_of_item, std::map<std::string, MappedFile>* files) {
  const auto found = files->find(name);
  if (found == files->end()) throw ArtefactError(name + ": missing; export the artefact again");
  const auto size = static_cast<int64_t>(found->second.bytes().size());
  if (size / bytes_of_item != items || size % bytes_of_item != 0) {
    throw ArtefactError(name + ": has " + std::to_string(size) + " bytes, expected " + std::to_string(bytes_of_item) + " for each of the " +
                        std::to_string(items) + " items of manifest.json's store; export the artefact again");
  }
  return std::move(found->second);
}

}  // namespace

ItemStore::ItemStore(const StoreShape& shape, std::map<std::string, MappedFile>* files) : shape_(shape) {
  const auto bytes = static_cast<int64_t>(at::elementSize(scalar_type(shape.vector_type)));
  vectors_ = take("item_vectors.bin", shape.num_items, row_size() * bytes, files);
  if (shape.vector_type == VectorType::kInt8) scales_ = take("item_scales.bin", shape.num_items, sizeof(float), files);
  if (!shape.index_type) return;
  index_ = take("item_index.bin", shape.num_items, *shape.index_type == IndexType::kUint8 ? 1 : 2, files);
  for (int64_t item = 0; item < shape.num_items; ++item) {
    if (query_of(item) >= shape.num_queries) {
      throw ArtefactError("item_index.bin: item " + std::to_string(item) + " has query " + std::to_string(query_of(item)) +
                          ", expected below num_queries=" + std::to_string(shape.num_queries) + "; export the artefact again");
    }
  }
}

int64_t ItemStore::query_of(int64_t item) const {
  if (*shape_.index_type == IndexType::kUint8) return index_.numbers<uint8_t>()[item];
  return index_.numbers<uint16_t>()[item];
}

at::Tensor ItemStore::queries(const std::vector<int64_t>& candidates) const {
  const auto count = static_cast<int64_t>(candidates.size());
  at::Tensor query_1K = at::zeros({1, count}, at::kLong);
  if (!shape_.index_type) return query_1K;
  auto* const queries = query_1K.data_ptr<int64_t>();
  for (size_t k = 0; k < candidates.size(); ++k) queries[k] = query_of(candidates[k]);
  return query_1K;
}

at::Tensor ItemStore::vectors(const std::vector<int64_t>& candidates) const {
  const auto count = static_cast<int64_t>(candidates.size());
  at::Tensor stored_RW = at::empty({count, row_size()}, scalar_type(shape_.vector_type));
  const size_t row_bytes = static_cast<size_t>(row_size()) * stored_RW.element_size();
  auto* const target = static_cast<char*>(stored_RW.data_ptr());
  std::vector<float> scales;
  for (size_t k = 0; k < candidates.size(); ++k) {
    std::memcpy(target + k * row_bytes, vectors_.bytes().data() + static_cast<size_t>(candidates[k]) * row_bytes, row_bytes);
    if (shape_.vector_type == VectorType::kInt8) scales.push_back(scales_.numbers<float>()[candidates[k]]);
  }
  return dequantised(stored_RW, scales).view({1, count, shape_.heads, shape_.width});
}

at::Tensor ItemStore::block(int64_t first, int64_t count) const {
  const at::ScalarType type = scalar_type(shape_.vector_type);
  const size_t offset = static_cast<size_t>(first * row_size()) * at::elementSize(type);
  // from_blob wants a pointer that may be written through; nothing writes, and the pages would not let it
  void* const start = const_cast<char*>(vectors_.bytes().data() + offset);
  std::vector<float> scales;
  if (shape_.vector_type == VectorType::kInt8) scales.assign(scales_.numbers<float>() + first, scales_.numbers<float>() + first + count);
  return dequantised(at::from_blob(start, {count, row_size()}, type), scales);
}

at::Tensor ItemStore::dequantised(at::Tensor stored_RW, const std::vector<float>& scales) const {
  at::Tensor vector_RW = stored_RW.to(at::kFloat);
  if (shape_.vector_type == VectorType::kInt8) vector_RW.mul_(at::tensor(scales).unsqueeze(1));
  return vector_RW;
}

}  // namespace crosstower
