// Typed access to manifest.json; every refusal names the field by its path.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace crosstower {

// A value of the manifest and where it stands in it.
class ManifestField {
 public:
  ManifestField(const nlohmann::json& value, std::string path) : value_(value), path_(std::move(path)) {}

  // The member called `name` of an object.
  ManifestField member(const std::string& name) const;
  // The elements of a list.
  std::vector<ManifestField> elements() const;
  // The members of an object, by name.
  std::vector<std::pair<std::string, ManifestField>> members() const;
  bool is_null() const { return value_.is_null(); }

  int64_t integer(int64_t low, int64_t high) const;
  bool boolean() const;
  // A string that is not empty.
  std::string text() const;
  // A string that is one of `choices`; its position there.
  size_t choice(const std::vector<std::string>& choices) const;
  // A string of `digits` lower-case hexadecimal digits.
  std::string hexadecimal(size_t digits) const;

  // Throws ArtefactError: this field, its value, what was expected.
  [[noreturn]] void refuse(const std::string& expected) const;

 private:
  const nlohmann::json& value_;
  std::string path_;
};

}  // namespace crosstower
