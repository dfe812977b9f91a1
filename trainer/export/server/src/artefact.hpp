// A loaded artefact: verified, in memory, ready to answer. It never changes; a newer one takes its place.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "answer.hpp"
#include "deadline.hpp"
#include "item_store.hpp"
#include "manifest.hpp"
#include "options.hpp"
#include "request.hpp"
#include "towers.hpp"

namespace crosstower {

class Artefact {
 public:
  // Verifies and loads the folder that `path` names now, and answers its golden requests of one user. ArtefactError says what is wrong.
  static std::shared_ptr<const Artefact> load(const std::string& path, const Limits& limits);

  const Manifest& manifest() const { return manifest_; }
  const std::filesystem::path& folder() const { return folder_; }

  // `limits` as this artefact allows them: the histories of its manifest, or fewer.
  Limits limits_for(const Limits& limits) const;

  // Reads a body of `route`, answers it: the whole way from text to text.
  std::string answer(Route route, std::string_view body, const Limits& limits, const Deadline& deadline) const;

 private:
  Artefact(std::filesystem::path folder, Manifest manifest, std::map<std::string, MappedFile>* files);

  // Scores each request's candidates; RequestError 503 when the deadline passes on the way.
  std::vector<ScoreAnswer> score(const std::vector<Request>& requests, const Deadline& deadline) const;

  // The top_k best items of the whole store for each request, exactly; matching models only.
  std::vector<RetrieveAnswer> retrieve(const std::vector<Request>& requests, const Deadline& deadline) const;

  // Answers the golden requests of one user; ArtefactError where this machine's libtorch computes other scores than the exporter's.
  void check_golden_requests(const std::map<std::string, MappedFile>& files, const Limits& limits) const;

  std::filesystem::path folder_;
  Manifest manifest_;
  Towers towers_;
  ItemStore store_;
};

}  // namespace crosstower
