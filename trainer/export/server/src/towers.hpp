// The TorchScript modules of an artefact; the only file that knows torch::jit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "manifest.hpp"
#include "mapped_file.hpp"

namespace crosstower {

// What the user tower takes of B users with J behaviours in all: U user features, H history features.
struct UserInputs {
  at::Tensor user_values;      // int64 [sum of user_lengths]: feature after feature, row after row
  at::Tensor user_lengths_UB;  // int64
  at::Tensor history_values_HJ;
  at::Tensor history_lengths_B;
  at::Tensor row_id_B;
};

// Shared by all threads: running a loaded module changes nothing in it. B users, N queries, H heads of user or item, K candidates,
// P head width.
class Towers {
 public:
  // Loads user_tower.pt and scorer.pt; ArtefactError names the one that doesn't load or lacks a method.
  Towers(const Manifest& manifest, const std::map<std::string, MappedFile>& files);
  ~Towers();

  // float32 [B, N, H, P]; noise, where the model takes any, keyed by row_id and the manifest's seed.
  at::Tensor user(const UserInputs& inputs) const;

  // float32 [1, K]
  at::Tensor score(const at::Tensor& user_1NHP, const at::Tensor& query_1K, const at::Tensor& item_1KHP) const;

 private:
  struct Modules;
  std::unique_ptr<Modules> modules_;
  int64_t noise_size_;
  int64_t seed_;
  UserShape shape_;
};

}  // namespace crosstower
