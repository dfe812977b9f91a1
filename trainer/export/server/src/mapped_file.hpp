// A whole file, read-only, in memory on demand.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace crosstower {

// Maps a file; the pages are those of the file that was opened, even when its name later stands for another one.
// Nobody may shorten the file while it is mapped: an artefact's files are never written twice.
class MappedFile {
 public:
  MappedFile() = default;

  // ArtefactError where there is no such regular file or it can't be read.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {data_, size_}; }

  // The content as numbers; mappings start at a page and so are aligned for each of them.
  template <typename Number>
  const Number* numbers() const {
    return reinterpret_cast<const Number*>(data_);
  }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace crosstower
