// manifest.json of an artefact: what the server needs of it, and the check that the folder is what it says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mapped_file.hpp"

namespace crosstower {

// A feature of the user: one id, or a list of min_len to max_len ids, each in [0, vocab_size).
struct UserFeature {
  std::string name;
  int64_t vocab_size;
  int64_t max_len;
  int64_t min_len;
  bool is_list;
};

// A feature of the user's behaviours: one id in [0, vocab_size) for each.
struct HistoryFeature {
  std::string name;
  int64_t vocab_size;
  int64_t min_len;
};

// What the user tower returns for a row: num_queries · heads vectors of width numbers.
struct UserShape {
  int64_t num_queries;
  int64_t heads;
  int64_t width;
};

enum class VectorType { kFloat32, kFloat16, kInt8 };
enum class IndexType { kUint8, kUint16 };

// The item store: num_items rows of heads · width numbers, and for models with meta queries a row's query.
struct StoreShape {
  int64_t num_items;
  int64_t num_queries;
  int64_t heads;
  int64_t width;
  VectorType vector_type;
  std::optional<IndexType> index_type;
};

struct FileEntry {
  std::string sha256;
  int64_t bytes;
};

struct Manifest {
  std::string artefact;  // the version id, 16 hexadecimal digits
  std::string task;      // pre_ranking or matching
  std::string model;
  int64_t step;
  std::string config_fingerprint;
  std::map<std::string, FileEntry> files;  // everything in the folder but manifest.json
  std::vector<UserFeature> user;           // in the order of the tower's inputs
  std::vector<HistoryFeature> history;     // in the order of the tower's inputs
  UserShape user_shape;
  int64_t noise_size;                      // X, numbers of noise that a row of the user tower takes; 0: none
  int64_t seed;                            // keys the noise
  StoreShape store;
  int64_t max_history;

  bool is_matching() const { return task == "matching"; }
};

// Reads `folder`/manifest.json and checks its seal, its id and every field; ArtefactError names what is wrong.
Manifest read_manifest(const std::filesystem::path& folder);

// Maps every listed file of `folder` and compares size and sha256; ArtefactError names the first file that is missing, changed or
// not listed. What was verified is what the mappings show.
std::map<std::string, MappedFile> verified_files(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace crosstower
