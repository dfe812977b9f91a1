#include "request.hpp"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "bounded_json.hpp"
#include "errors.hpp"
#include "field_path.hpp"

namespace crosstower {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const FieldPath& path, const std::string& message) { throw RequestError(400, path.text(), message); }

const json& expect_object(const json& value, const FieldPath& path) {
  if (!value.is_object()) refuse(path, std::string("expected an object, got ") + value.type_name());
  return value;
}

const json& expect_list(const json& value, const FieldPath& path, int64_t least, int64_t most) {
  if (!value.is_array()) refuse(path, std::string("expected a list, got ") + value.type_name());
  const auto size = static_cast<int64_t>(value.size());
  if (size < least || size > most) {
    refuse(path, "has " + std::to_string(size) + " elements, expected " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

// An integer from `low` up to, not including, `end`.
int64_t expect_integer(const json& value, const FieldPath& path, int64_t low, int64_t end) {
  if (!value.is_number_integer()) {
    refuse(path, std::string("expected an integer, got ") + (value.is_number() ? "a number with a fraction or beyond 64 bits" : value.type_name()));
  }
  // 2^63 and more would turn negative as int64
  const bool above = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
  const int64_t number = above ? INT64_MAX : value.get<int64_t>();
  if (above || number < low || number >= end) {
    refuse(path, value.dump() + " is outside [" + std::to_string(low) + ", " + std::to_string(end) + ")");
  }
  return number;
}

std::vector<int64_t> read_ids(const json& list, const FieldPath& path, int64_t vocab_size) {
  std::vector<int64_t> ids;
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) ids.push_back(expect_integer(list[i], path.element(i), 0, vocab_size));
  return ids;
}

// The member `name` of `object`; null where `optional` and absent.
const json* find_member(const json& object, const std::string& name, const FieldPath& path, bool optional = false) {
  const auto found = object.find(name);
  if (found != object.end()) return &*found;
  if (!optional) refuse(path.member(name), "missing");
  return nullptr;
}

template <typename Names>
void refuse_unknown(const json& object, const FieldPath& path, const Names& names) {
  for (const auto& [name, value] : object.items()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    std::string known;
    for (const auto& each : names) known += (known.empty() ? "" : ", ") + std::string(each);
    refuse(path.member(name), known.empty() ? "unknown field; none is expected here" : "unknown field; known ones: " + known);
  }
}

template <typename Feature>
std::vector<std::string> names_of(const std::vector<Feature>& features) {
  std::vector<std::string> names;
  for (const Feature& feature : features) names.push_back(feature.name);
  return names;
}

void read_user(const json& request, const FieldPath& path, const Manifest& manifest, Request* result) {
  const json* const found = find_member(request, "user", path, manifest.user.empty());
  if (found == nullptr) return;
  const FieldPath user_path = path.member("user");
  const json& user = expect_object(*found, user_path);
  refuse_unknown(user, user_path, names_of(manifest.user));
  for (const UserFeature& feature : manifest.user) {
    const json& value = *find_member(user, feature.name, user_path);
    const FieldPath feature_path = user_path.member(feature.name);
    if (feature.is_list) {
      expect_list(value, feature_path, feature.min_len, feature.max_len);
      result->user.push_back(read_ids(value, feature_path, feature.vocab_size));
    } else {
      result->user.push_back({expect_integer(value, feature_path, 0, feature.vocab_size)});
    }
  }
}

void read_history(const json& request, const FieldPath& path, const Manifest& manifest, int64_t max_history, Request* result) {
  const json* const found = find_member(request, "history", path, manifest.history.empty());
  if (found == nullptr) return;
  const FieldPath history_path = path.member("history");
  const json& history = expect_object(*found, history_path);
  refuse_unknown(history, history_path, names_of(manifest.history));
  for (const HistoryFeature& feature : manifest.history) {
    const json& value = *find_member(history, feature.name, history_path);
    const FieldPath feature_path = history_path.member(feature.name);
    expect_list(value, feature_path, feature.min_len, max_history);
    result->history.push_back(read_ids(value, feature_path, feature.vocab_size));
    if (result->history.back().size() != result->history.front().size()) {
      refuse(feature_path, "has " + std::to_string(value.size()) + " elements, but " + manifest.history.front().name + " has " +
                               std::to_string(result->history.front().size()) + "; every behaviour has every feature");
    }
  }
}

Request read_request(const json& value, const FieldPath& path, Route route, const Manifest& manifest, const Limits& limits) {
  const json& content = expect_object(value, path);
  Request request;
  if (route == Route::kScore) {
    refuse_unknown(content, path, std::initializer_list<const char*>{"user", "history", "candidates", "top_k", "row_id"});
  } else {
    refuse_unknown(content, path, std::initializer_list<const char*>{"user", "history", "top_k", "row_id"});
  }
  read_user(content, path, manifest, &request);
  read_history(content, path, manifest, limits.max_history, &request);
  if (const json* const row_id = find_member(content, "row_id", path, true)) {
    request.row_id = expect_integer(*row_id, path.member("row_id"), 0, INT64_MAX);
  }
  int64_t most = std::min(manifest.store.num_items, limits.max_candidates);
  if (route == Route::kScore) {
    const FieldPath candidates_path = path.member("candidates");
    const json& candidates = expect_list(*find_member(content, "candidates", path), candidates_path, 1, limits.max_candidates);
    request.candidates = read_ids(candidates, candidates_path, manifest.store.num_items);
    most = static_cast<int64_t>(request.candidates.size());
  }
  if (const json* const top_k = find_member(content, "top_k", path, route == Route::kScore)) {
    request.top_k = expect_integer(*top_k, path.member("top_k"), 1, most + 1);
  }
  return request;
}

}  // namespace

std::vector<Request> parse_requests(std::string_view body, Route route, const Manifest& manifest, const Limits& limits) {
  const json content = parse_bounded_json(body);
  const FieldPath root("");
  if (!content.is_object()) throw RequestError(400, "body", std::string("expected an object, got ") + content.type_name());
  refuse_unknown(content, root, std::initializer_list<const char*>{"requests"});
  const FieldPath list_path = root.member("requests");
  const json& list = expect_list(*find_member(content, "requests", root), list_path, 1, limits.max_batch);
  std::vector<Request> requests;
  requests.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) requests.push_back(read_request(list[i], list_path.element(i), route, manifest, limits));
  return requests;
}

}  // namespace crosstower
