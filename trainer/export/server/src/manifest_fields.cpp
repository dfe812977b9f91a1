#include "manifest_fields.hpp"

#include <algorithm>

#include "errors.hpp"

namespace crosstower {

using nlohmann::json;

void ManifestField::refuse(const std::string& expected) const {
  std::string shown = value_.dump(-1, ' ', false, json::error_handler_t::replace);
  if (shown.size() > 80) shown = shown.substr(0, 80) + "…";
  throw ArtefactError("manifest.json: " + (path_.empty() ? "the file" : path_) + " is " + shown + ", expected " + expected +
                      "; export the artefact again with the version of this server");
}

ManifestField ManifestField::member(const std::string& name) const {
  if (!value_.is_object()) refuse("an object");
  const auto found = value_.find(name);
  const std::string path = path_.empty() ? name : path_ + "." + name;
  if (found == value_.end()) {
    throw ArtefactError("manifest.json: field " + path + " is missing; export the artefact again with the version of this server");
  }
  return {*found, path};
}

std::vector<ManifestField> ManifestField::elements() const {
  if (!value_.is_array()) refuse("a list");
  std::vector<ManifestField> fields;
  for (size_t i = 0; i < value_.size(); ++i) fields.emplace_back(value_[i], path_ + "[" + std::to_string(i) + "]");
  return fields;
}

std::vector<std::pair<std::string, ManifestField>> ManifestField::members() const {
  if (!value_.is_object()) refuse("an object");
  std::vector<std::pair<std::string, ManifestField>> fields;
  for (const auto& [name, value] : value_.items()) fields.emplace_back(name, ManifestField(value, path_ + "." + name));
  return fields;
}

int64_t ManifestField::integer(int64_t low, int64_t high) const {
  const std::string expected = "an integer from " + std::to_string(low) + " to " + std::to_string(high);
  // an unsigned number above 2^63 - 1 would turn negative
  if (!value_.is_number_integer() || (value_.is_number_unsigned() && value_.get<uint64_t>() > uint64_t{INT64_MAX})) refuse(expected);
  const int64_t number = value_.get<int64_t>();
  if (number < low || number > high) refuse(expected);
  return number;
}

bool ManifestField::boolean() const {
  if (!value_.is_boolean()) refuse("true or false");
  return value_.get<bool>();
}

std::string ManifestField::text() const {
  if (!value_.is_string() || value_.get_ref<const std::string&>().empty()) refuse("a string that is not empty");
  return value_.get<std::string>();
}

size_t ManifestField::choice(const std::vector<std::string>& choices) const {
  const auto found = value_.is_string() ? std::find(choices.begin(), choices.end(), value_.get<std::string>()) : choices.end();
  if (found == choices.end()) {
    std::string listed;
    for (const std::string& choice : choices) listed += (listed.empty() ? "" : " or ") + choice;
    refuse(listed);
  }
  return static_cast<size_t>(found - choices.begin());
}

std::string ManifestField::hexadecimal(size_t digits) const {
  const std::string value = value_.is_string() ? value_.get<std::string>() : "";
  if (value.size() != digits || value.find_first_not_of("0123456789abcdef") != std::string::npos) {
    refuse(std::to_string(digits) + " hexadecimal digits");
  }
  return value;
}

}  // namespace crosstower
