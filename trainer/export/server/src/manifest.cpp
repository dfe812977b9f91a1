#include "manifest.hpp"

#include <algorithm>
#include <set>
#include <vector>

#include "errors.hpp"
#include "manifest_fields.hpp"
#include "sha256.hpp"

namespace crosstower {
namespace {

using nlohmann::json;

constexpr char kManifest[] = "manifest.json";
constexpr int64_t kFormatVersion = 1;
constexpr size_t kDigestDigits = 64;
constexpr int64_t kMaxQueries = 65'536;            // what the largest index type tells apart
constexpr int64_t kMaxIds = int64_t{1} << 40;     // of a table or a list: far above any real one, far below an overflow
constexpr int64_t kMaxNumbers = int64_t{1} << 24;  // of a vector, likewise

// The seal is the sha256 of the manifest's own bytes with the seal's digits replaced by zeros.
void check_seal(std::string text) {
  const std::string key = R"("seal": ")";
  const size_t place = text.find(key);
  const size_t start = place + key.size();
  const bool once = place != std::string::npos && text.find(key, start) == std::string::npos && start + kDigestDigits < text.size();
  const std::string seal = once ? text.substr(start, kDigestDigits) : "";
  if (once) text.replace(start, kDigestDigits, std::string(kDigestDigits, '0'));
  if (!once || sha256_hex(text) != seal) {
    throw ArtefactError("manifest.json: does not match its own sha256 (seal); export the artefact again, or copy it again");
  }
}

bool is_plain_name(const std::string& name) {
  constexpr char kAllowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !name.empty() && name[0] != '.' && name != kManifest && name.find_first_not_of(kAllowed) == std::string::npos;
}

std::map<std::string, FileEntry> read_files(const ManifestField& field) {
  std::map<std::string, FileEntry> files;
  for (const auto& [name, file] : field.members()) {
    if (!is_plain_name(name)) file.refuse("a plain file name: letters, digits, and ._- after the first character");
    files[name] = {file.member("sha256").hexadecimal(kDigestDigits), file.member("bytes").integer(0, INT64_MAX)};
  }
  return files;
}

StoreShape read_store(const ManifestField& field) {
  StoreShape store{field.member("num_items").integer(1, kMaxIds), field.member("num_queries").integer(1, kMaxQueries),
                   field.member("heads").integer(1, kMaxNumbers), field.member("width").integer(1, kMaxNumbers),
                   static_cast<VectorType>(field.member("vector_dtype").choice({"float32", "float16", "int8"})), std::nullopt};
  const ManifestField index = field.member("index_dtype");
  if (!index.is_null()) store.index_type = static_cast<IndexType>(index.choice({"uint8", "uint16"}));
  if (!store.index_type && store.num_queries > 1) index.refuse("uint8 or uint16, as num_queries is above 1");
  return store;
}

void read_user(const ManifestField& field, Manifest* manifest) {
  for (const ManifestField& feature : field.member("features").elements()) {
    const int64_t max_len = feature.member("max_len").integer(1, kMaxIds);
    const bool is_list = feature.member("is_list").boolean();
    if (!is_list && max_len != 1) feature.refuse("max_len 1 for a feature that is no list");
    manifest->user.push_back({feature.member("name").text(), feature.member("vocab_size").integer(1, kMaxIds), max_len,
                              feature.member("min_len").integer(is_list ? 0 : 1, max_len), is_list});
  }
  for (const ManifestField& feature : field.member("history").elements()) {
    manifest->history.push_back({feature.member("name").text(), feature.member("vocab_size").integer(1, kMaxIds),
                                 feature.member("min_len").integer(0, kMaxIds)});
  }
  manifest->user_shape = {field.member("num_queries").integer(1, kMaxQueries), field.member("heads").integer(1, kMaxNumbers),
                          field.member("width").integer(1, kMaxNumbers)};
  manifest->noise_size = field.member("noise_size").integer(0, kMaxNumbers);
  manifest->seed = field.member("seed").integer(0, INT64_MAX);
}

// The id binds the files, the step and the config: files of two artefacts, each intact, don't pass as one.
void check_id(const Manifest& manifest) {
  std::string text;
  for (const auto& [name, file] : manifest.files) text += name + " " + file.sha256 + "\n";
  text += "step " + std::to_string(manifest.step) + "\nconfig " + manifest.config_fingerprint + "\n";
  if (sha256_hex(text).substr(0, 16) != manifest.artefact) {
    throw ArtefactError("manifest.json: artefact " + manifest.artefact + " is not the id of the files, step and config that it lists;"
                        " it was put together from more than one export: export again");
  }
}

void check_expected_files(const Manifest& manifest) {
  std::vector<std::string> names = {"schema.json",      "user_tower.pt",         "item_tower.pt",       "scorer.pt",
                                    "item_vectors.bin", "golden_requests.jsonl", "golden_answers.jsonl"};
  if (manifest.store.vector_type == VectorType::kInt8) names.push_back("item_scales.bin");
  if (manifest.store.index_type) names.push_back("item_index.bin");
  for (const std::string& name : names) {
    if (manifest.files.count(name) == 0) throw ArtefactError(name + ": not listed in manifest.json; export the artefact again");
  }
}

// Retrieval is one product of the user's vector with the item's: both are one vector of one width.
void check_shapes(const ManifestField& root, const Manifest& manifest) {
  const UserShape& user = manifest.user_shape;
  if (user.num_queries != manifest.store.num_queries) {
    root.member("user").member("num_queries").refuse("the store's num_queries=" + std::to_string(manifest.store.num_queries));
  }
  if (!manifest.is_matching()) return;
  if (manifest.store.heads != 1) root.member("store").member("heads").refuse("1 for a matching model");
  if (user.heads != 1) root.member("user").member("heads").refuse("1 for a matching model");
  if (user.num_queries != 1) root.member("user").member("num_queries").refuse("1 for a matching model");
  if (user.width != manifest.store.width) {
    root.member("user").member("width").refuse("the store's width=" + std::to_string(manifest.store.width) + " for a matching model");
  }
}

Manifest parse_manifest(const json& content) {
  const ManifestField root(content, "");
  Manifest manifest{};
  root.member("format_version").integer(kFormatVersion, kFormatVersion);
  // tables served elsewhere need a caller that looks ids up; this server has none
  if (root.member("tables").choice({"inside", "quantised", "outside"}) == 2) {
    throw ArtefactError("manifest.json: tables=outside: this artefact's towers take looked-up vectors, and this server looks up none;"
                        " export with --tables inside or quantised");
  }
  if (root.member("layout").choice({"plain", "triton"}) == 1) {
    throw ArtefactError("manifest.json: layout=triton: this artefact is laid out for Triton Inference Server; export with --layout plain");
  }
  manifest.artefact = root.member("artefact").hexadecimal(16);
  manifest.task = root.member("task").choice({"pre_ranking", "matching"}) == 0 ? "pre_ranking" : "matching";
  manifest.model = root.member("model").text();
  manifest.step = root.member("step").integer(0, INT64_MAX);
  manifest.config_fingerprint = root.member("config_fingerprint").text();
  manifest.files = read_files(root.member("files"));
  read_user(root.member("user"), &manifest);
  manifest.store = read_store(root.member("store"));
  check_shapes(root, manifest);
  manifest.max_history = root.member("limits").member("max_history").integer(0, kMaxIds);
  return manifest;
}

}  // namespace

Manifest read_manifest(const std::filesystem::path& folder) {
  const MappedFile file(folder / kManifest);
  check_seal(std::string(file.bytes()));
  json content;
  try {
    content = json::parse(file.bytes());
  } catch (const json::exception&) {
    throw ArtefactError("manifest.json: not JSON (" + folder.string() + "); export the artefact again, or copy it again");
  }
  const Manifest manifest = parse_manifest(content);
  check_id(manifest);
  check_expected_files(manifest);
  return manifest;
}

std::map<std::string, MappedFile> verified_files(const std::filesystem::path& folder, const Manifest& manifest) {
  const std::string again = "; export the artefact again, or copy it again";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != kManifest && manifest.files.count(name) == 0) {
      throw ArtefactError(name + ": in the folder " + folder.string() + " but not in its manifest.json; remove it");
    }
  }
  std::map<std::string, MappedFile> files;
  for (const auto& [name, entry] : manifest.files) {
    MappedFile file(folder / name);
    const auto size = static_cast<int64_t>(file.bytes().size());
    if (size != entry.bytes) {
      throw ArtefactError(name + ": has " + std::to_string(size) + " bytes, manifest.json says " + std::to_string(entry.bytes) + again);
    }
    if (sha256_hex(file.bytes()) != entry.sha256) {
      throw ArtefactError(name + ": its bytes are not those that manifest.json describes (sha256)" + again);
    }
    files[name] = std::move(file);
  }
  return files;
}

}  // namespace crosstower
