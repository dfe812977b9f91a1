// The three ways in which something can be wrong: with the command, with the artefact, with a request.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace crosstower {

// Exit codes of the whole project; trainer/errors.py has the same.
enum ExitCode : int { kOk = 0, kBug = 1, kUserError = 2, kBadArtefact = 4 };

// A command that can't work: an option that is unknown or out of range, a port that is taken.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An artefact that is damaged, incomplete, mixed, or of another format; the message names the file and what to do.
class ArtefactError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A request that gets a 4xx or 5xx answer: which status, which field of the request, what is wrong with it.
class RequestError : public std::runtime_error {
 public:
  RequestError(int status, std::string field, const std::string& message)
      : std::runtime_error(message), status_(status), field_(std::move(field)) {}

  int status() const { return status_; }
  const std::string& field() const { return field_; }

 private:
  int status_;
  std::string field_;
};

}  // namespace crosstower
