// B users, N queries, H heads, P head width, K candidates, M items of a block
#include "artefact.hpp"

#include <ATen/ops/matmul.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <system_error>

#include "errors.hpp"
#include "golden.hpp"
#include "user_inputs.hpp"

namespace crosstower {
namespace {

constexpr size_t kTowerRows = 32;       // users of one call: bounds the memory of a tower that makes N vectors for each
constexpr int64_t kBlockItems = 8'192;  // items of one product: a block of vectors stays in the cache

// A score that is no number would break the order of a ranking, and JSON has no word for it.
float finite(float score) {
  if (!std::isfinite(score)) throw std::runtime_error("a score is not finite; the artefact's weights are broken");
  return score;
}

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

}  // namespace

std::shared_ptr<const Artefact> Artefact::load(const std::string& path, const Limits& limits) {
  std::error_code error;
  // the link may move while the files are read: all of them come from the folder that it names now
  const std::filesystem::path folder = std::filesystem::canonical(path, error);
  if (error || !std::filesystem::is_directory(folder)) {
    throw ArtefactError(path + ": no such folder; --artefact names the folder that trainer.export wrote");
  }
  try {
    Manifest manifest = read_manifest(folder);
    std::map<std::string, MappedFile> files = verified_files(folder, manifest);
    const std::shared_ptr<const Artefact> artefact(new Artefact(folder, std::move(manifest), &files));
    artefact->check_golden_requests(files, limits);
    return artefact;
  } catch (const std::filesystem::filesystem_error& failure) {
    throw ArtefactError(folder.string() + ": can't be read: " + failure.code().message());
  }
}

Artefact::Artefact(std::filesystem::path folder, Manifest manifest, std::map<std::string, MappedFile>* files)
    : folder_(std::move(folder)), manifest_(std::move(manifest)), towers_(manifest_, *files), store_(manifest_.store, files) {}

void Artefact::check_golden_requests(const std::map<std::string, MappedFile>& files, const Limits& limits) const {
  Limits wide = limits_for(limits);
  wide.max_history = manifest_.max_history;
  wide.max_batch = wide.max_candidates = INT64_MAX;
  wide.timeout_ms = 3'600'000;
  try {
    for (const GoldenRequest& golden : read_golden(files.at("golden_requests.jsonl").bytes(), files.at("golden_answers.jsonl").bytes())) {
      check_golden_answer(golden, answer(golden.route, golden.body, wide, Deadline(wide.timeout_ms)));
    }
  } catch (const RequestError& refused) {
    throw ArtefactError("golden_requests.jsonl: " + refused.field() + ": " + refused.what() + "; export the artefact again");
  } catch (const ArtefactError&) {
    throw;
  } catch (const std::exception& failure) {
    throw ArtefactError("golden_requests.jsonl: the requests can't be answered: " + first_line(failure.what()) +
                        "; export the artefact again with this torch");
  }
}

Limits Artefact::limits_for(const Limits& limits) const {
  Limits result = limits;
  result.max_history = limits.max_history == 0 ? manifest_.max_history : std::min(limits.max_history, manifest_.max_history);
  return result;
}

std::string Artefact::answer(Route route, std::string_view body, const Limits& limits, const Deadline& deadline) const {
  if (route == Route::kRetrieve && !manifest_.is_matching()) {
    throw RequestError(409, "path", "/v1/retrieve needs a matching model, and this artefact is " + manifest_.model +
                                        " for pre-ranking: its scores need candidates, send them to /v1/score");
  }
  const std::vector<Request> requests = parse_requests(body, route, manifest_, limits_for(limits));
  deadline.check();
  const c10::InferenceMode no_gradients;
  if (route == Route::kRetrieve) return retrieve_body(manifest_.artefact, retrieve(requests, deadline));
  const std::vector<ScoreAnswer> answers = score(requests, deadline);
  std::vector<const std::vector<int64_t>*> candidates;
  for (const Request& request : requests) candidates.push_back(&request.candidates);
  return score_body(manifest_.artefact, answers, candidates);
}

std::vector<ScoreAnswer> Artefact::score(const std::vector<Request>& requests, const Deadline& deadline) const {
  std::vector<ScoreAnswer> answers;
  answers.reserve(requests.size());
  for (size_t first = 0; first < requests.size(); first += kTowerRows) {
    const size_t end = std::min(first + kTowerRows, requests.size());
    deadline.check();
    const at::Tensor user_BNHP = towers_.user(user_inputs(requests, first, end, manifest_));
    for (size_t row = first; row < end; ++row) {
      deadline.check();
      const Request& request = requests[row];
      const at::Tensor user_1NHP = user_BNHP.narrow(0, static_cast<int64_t>(row - first), 1);
      const at::Tensor score_1K = towers_.score(user_1NHP, store_.queries(request.candidates), store_.vectors(request.candidates));
      const auto* const scores = score_1K.const_data_ptr<float>();
      ScoreAnswer answer;
      TopItems top(request.top_k);
      for (int64_t k = 0; k < score_1K.size(1); ++k) {
        answer.scores.push_back(finite(scores[k]));
        top.see({scores[k], k});
      }
      answer.top = top.sorted();
      answers.push_back(std::move(answer));
    }
  }
  return answers;
}

std::vector<RetrieveAnswer> Artefact::retrieve(const std::vector<Request>& requests, const Deadline& deadline) const {
  std::vector<RetrieveAnswer> answers;
  answers.reserve(requests.size());
  for (size_t first = 0; first < requests.size(); first += kTowerRows) {
    const size_t end = std::min(first + kTowerRows, requests.size());
    const auto rows = static_cast<int64_t>(end - first);
    deadline.check();
    const at::Tensor user_BNHP = towers_.user(user_inputs(requests, first, end, manifest_));
    const at::Tensor user_BP = user_BNHP.reshape({rows, store_.shape().width}).to(at::kDouble);
    std::vector<TopItems> best;
    for (size_t row = first; row < end; ++row) best.emplace_back(requests[row].top_k);
    for (int64_t item = 0; item < store_.shape().num_items; item += kBlockItems) {
      deadline.check();
      const int64_t count = std::min(kBlockItems, store_.shape().num_items - item);
      // in float64 and rounded once, so that equal vectors tie exactly whichever kernel multiplies them
      const at::Tensor item_MP = store_.block(item, count).to(at::kDouble);
      const at::Tensor score_BM = at::matmul(user_BP, item_MP.t()).to(at::kFloat).contiguous();
      const auto* const scores = score_BM.const_data_ptr<float>();
      for (int64_t i = 0; i < rows * count; ++i) best[static_cast<size_t>(i / count)].see({finite(scores[i]), item + i % count});
    }
    for (TopItems& top : best) answers.push_back({top.sorted()});
  }
  return answers;
}

}  // namespace crosstower
