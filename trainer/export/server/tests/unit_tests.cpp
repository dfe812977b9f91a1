// The parts that need no artefact; prints each failed check and exits 1.

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <unistd.h>

#include "answer.hpp"
#include "bounded_json.hpp"
#include "errors.hpp"
#include "field_path.hpp"
#include "golden.hpp"
#include "manifest.hpp"
#include "options.hpp"
#include "request.hpp"
#include "sha256.hpp"
#include "top_items.hpp"
#include "transport.hpp"

namespace crosstower {
namespace {

int failures = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

template <typename Error, typename Call>
bool throws(const Call& call) {
  try {
    call();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void sha256_of_known_texts() {
  // FIPS 180-2, appendix B
  check(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "sha256 of abc");
  check(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256 of nothing");
}

void decimals_read_back_as_the_same_float() {
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const uint32_t bits = random();
    float number = 0;
    std::memcpy(&number, &bits, sizeof(number));
    if (!std::isfinite(number)) continue;
    const auto parsed = static_cast<float>(nlohmann::json::parse(decimal(number)).get<double>());
    check(std::memcmp(&parsed, &number, sizeof(number)) == 0, "a float32 survives its decimal form as JSON");
  }
  check(decimal(0.1f) == "0.1", "the shortest form of 0.1f");
}

void top_items_break_ties_by_position() {
  TopItems top(3);
  for (const Scored& one : {Scored{1, 5}, Scored{2, 9}, Scored{2, 4}, Scored{1, 2}, Scored{0, 0}}) top.see(one);
  const std::vector<Scored> best = top.sorted();
  check(best.size() == 3 && best[0].position == 4 && best[1].position == 9 && best[2].position == 2, "ties go to the lower position");
  TopItems none(0);
  none.see({1, 1});
  check(none.sorted().empty(), "a top of none stays empty");
}

void json_is_bounded() {
  check(parse_bounded_json(R"({"a":[{"b":{"c":[1]}}]})").is_object(), "a request's nesting is allowed");
  check(throws<RequestError>([] { parse_bounded_json("[[[[[[[[[1]]]]]]]]]"); }), "nine levels are refused");
  check(parse_bounded_json("[[[[[[[[1]]]]]]]]").is_array(), "eight levels are not");
  check(throws<RequestError>([] { parse_bounded_json(std::string(10'000'000, '[')); }), "ten million brackets are refused");
  check(throws<RequestError>([] { parse_bounded_json(R"({"a":1,"a":2})"); }), "a name given twice is refused");
  check(throws<RequestError>([] { parse_bounded_json(R"([{"a":1,"b":[{"c":1}],"a":2}])"); }), "also with an object between");
  check(parse_bounded_json(R"([{"a":1},{"a":2}])").size() == 2, "two objects may share names");
  check(throws<RequestError>([] { parse_bounded_json("1e999"); }), "a number beyond a double is refused");
  check(throws<RequestError>([] { parse_bounded_json("NaN"); }), "NaN is no JSON");
  check(throws<RequestError>([] { parse_bounded_json("{} x"); }), "text after the value is refused");
}

void paths_name_fields() {
  const FieldPath root("");
  const FieldPath requests = root.member("requests");
  const FieldPath first = requests.element(0);
  const FieldPath history = first.member("history");
  const FieldPath feature = history.member("hist_item");
  check(feature.element(3).text() == "requests[0].history.hist_item[3]", "the path of an id");
  check(root.member(std::string(1'000, 'x')).text().size() < 100, "a long name is shortened");
}

Options parse(const std::vector<const char*>& words) {
  std::vector<const char*> argv = {"crosstower_server"};
  argv.insert(argv.end(), words.begin(), words.end());
  return parse_options(static_cast<int>(argv.size()), argv.data());
}

void options_are_checked() {
  check(parse({"--artefact", "x", "--port=0"}).port == 0, "both ways of giving a value");
  check(throws<UserError>([] { parse({}); }), "an artefact is required");
  check(throws<UserError>([] { parse({"--artefact", "x", "--prot", "1"}); }), "an unknown option is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port", "65536"}); }), "a port out of range is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port", "80x"}); }), "a number with a tail is refused");
  check(throws<UserError>([] { parse({"--artefact", "x", "--port"}); }), "a missing value is refused");
}

Manifest small_manifest() {
  Manifest manifest{};
  manifest.task = "matching";
  manifest.user = {{"user", 400, 1, 1, false}, {"genres", 18, 6, 0, true}};
  manifest.history = {{"hist_item", 480, 0}, {"hist_time_lag", 33, 0}};
  manifest.store = {480, 1, 1, 16, VectorType::kFloat32, std::nullopt};
  manifest.max_history = 50;
  return manifest;
}

const std::string kBody = R"({"requests":[{"user":{"user":12,"genres":[1,2]},"history":{"hist_item":[3,4],"hist_time_lag":[5,6]},)"
                          R"("candidates":[7,8,9],"top_k":2,"row_id":11}]})";

Limits request_limits() {
  Limits limits;
  limits.max_history = 50;
  return limits;
}

void a_valid_body_is_read() {
  const std::vector<Request> requests = parse_requests(kBody, Route::kScore, small_manifest(), request_limits());
  check(requests.size() == 1 && requests[0].candidates == std::vector<int64_t>({7, 8, 9}) && requests[0].top_k == 2, "candidates and top_k");
  check(requests[0].user == std::vector<std::vector<int64_t>>({{12}, {1, 2}}), "the user's features in the manifest's order");
  check(requests[0].history == std::vector<std::vector<int64_t>>({{3, 4}, {5, 6}}) && requests[0].row_id == 11, "history and row_id");
}

// Either a request or a refusal, whatever the bytes are; the sanitizers watch.
void any_bytes_are_read_or_refused() {
  const Manifest manifest = small_manifest();
  std::mt19937 random(11);
  int refused = 0;
  const auto below = [&random](size_t end) { return static_cast<size_t>(random() % end); };
  const std::array<std::string, 12> pieces = {"[", "]", "{", "}", "null", "-1", "9223372036854775808", "1e400", "\"", "\\u0000", "\xff", ",,"};
  for (int i = 0; i < 20'000; ++i) {
    std::string body = kBody;
    for (size_t change = below(4) + 1; change > 0; --change) {
      const size_t place = below(body.size());
      if (below(3) == 0) body.replace(place, below(6), pieces[below(pieces.size())]);
      if (below(3) == 1) body[place] = static_cast<char>(random());
      if (below(3) == 2) body.resize(place + 1);
    }
    try {
      parse_requests(body, i % 2 == 0 ? Route::kScore : Route::kRetrieve, manifest, request_limits());
    } catch (const RequestError& error) {
      ++refused;
      check(error.status() == 400 && !error.field().empty() && !error_body(error.field(), error.what()).empty(), "a refusal names a field");
    }
  }
  check(refused > 15'000, "most of them are refused");
}

void golden_answers_are_compared() {
  const std::string requests = "{\"requests\":[{\"candidates\":[7]}]}\n{\"requests\":[{},{}]}\n{\"requests\":[{\"top_k\":1}]}\n";
  const std::string answers = "{\"answers\":[{\"scores\":[1.5]}]}\n{\"answers\":[{},{}]}\n{\"answers\":[{\"scores\":[-3,0]}]}\n";
  const std::vector<GoldenRequest> golden = read_golden(requests, answers);
  check(golden.size() == 2 && golden[0].line == 0 && golden[1].line == 2, "the requests of one user");
  check(golden[0].route == Route::kScore && golden[1].route == Route::kRetrieve, "their routes");
  const auto refused = [&golden](size_t place, const char* scores) {
    return throws<ArtefactError>([&] { check_golden_answer(golden[place], R"({"answers":[{"scores":)" + std::string(scores) + "}]}"); });
  };
  check(!refused(0, "[1.500009]") && refused(0, "[1.50002]") && refused(0, "[]"), "a score may differ by rounding");
  check(!refused(1, "[-3,-9e-6]") && refused(1, "[-3,-2e-5]") && refused(1, "[-3]"), "each of them");
  check(throws<ArtefactError>([&] { read_golden(requests, "[]"); }), "a line that holds no answers");
  check(throws<ArtefactError>([&] { read_golden(requests, ""); }), "no answers at all");
}

httplib::Request head(const std::string& method, const std::string& path, const httplib::Headers& headers) {
  httplib::Request request;
  request.method = method;
  request.path = path;
  request.headers = headers;
  return request;
}

int status_of(const httplib::Request& request) {
  try {
    check_head(request, Limits());
    return 200;
  } catch (const RequestError& error) {
    return error.status();
  }
}

void heads_are_checked() {
  check(status_of(head("POST", "/v1/score", {{"Content-Length", "10"}})) == 200, "a length is enough");
  check(status_of(head("GET", "/healthz", {})) == 200, "a GET needs none");
  check(status_of(head("POST", "/v1/score", {})) == 411, "a POST without a length");
  check(status_of(head("POST", "/v1/score", {{"Content-Length", "16777217"}})) == 413, "one byte too many");
  check(status_of(head("POST", "/v1/score", {{"Content-Length", "99999999999999999999"}})) == 413, "a length beyond 64 bits");
  check(status_of(head("POST", "/v1/score", {{"Content-Length", "1"}, {"Content-Length", "1"}})) == 400, "a length given twice");
  check(status_of(head("POST", "/v1/score", {{"Content-Length", "-1"}})) == 400, "a negative length");
  check(status_of(head("POST", "/v1/scores", {{"Content-Length", "1"}})) == 404, "an unknown path");
  check(status_of(head("PUT", "/v1/score", {{"Content-Length", "1"}})) == 405, "a wrong method");
}

// A manifest with the right seal but arbitrary fields is read or refused by name.
void any_sealed_manifest_is_read_or_refused() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("crosstower-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::array<std::string, 8> values = {"1", "-1", "\"matching\"", "[]", "{}", "null", "18446744073709551615", "\"inside\""};
  std::mt19937 random(13);
  for (int i = 0; i < 300; ++i) {
    std::string text = "{\"format_version\": 1";
    for (const char* name : {"artefact", "task", "model", "step", "config_fingerprint", "tables", "layout", "files", "user", "store", "limits"}) {
      if (random() % 8 > 0) text += std::string(", \"") + name + "\": " + values[random() % values.size()];
    }
    text += ", \"seal\": \"" + std::string(64, '0') + "\"}";
    text.replace(text.size() - 66, 64, sha256_hex(text));
    std::ofstream(folder / "manifest.json") << text;
    check(throws<ArtefactError>([&] { read_manifest(folder); }), "a manifest without most of its fields is refused");
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace crosstower

int main() {
  using namespace crosstower;
  sha256_of_known_texts();
  decimals_read_back_as_the_same_float();
  top_items_break_ties_by_position();
  json_is_bounded();
  paths_name_fields();
  options_are_checked();
  a_valid_body_is_read();
  any_bytes_are_read_or_refused();
  golden_answers_are_compared();
  heads_are_checked();
  any_sealed_manifest_is_read_or_refused();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
