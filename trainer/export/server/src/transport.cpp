#include "transport.hpp"

#include <charconv>
#include <memory>

#include "answer.hpp"
#include "errors.hpp"

namespace crosstower {
namespace {

bool announces_body(const httplib::Request& request) {
  return request.has_header("Content-Length") ? request.get_header_value("Content-Length") != "0" : request.has_header("Transfer-Encoding");
}

std::string method_of(const std::string& path) {
  if (path == "/v1/score" || path == "/v1/retrieve") return "POST";
  return path == "/healthz" || path == "/metrics" ? "GET" : "";
}

// A length that two readers could take for two numbers would shift the start of the next request.
void check_length(const httplib::Request& request, const Limits& limits) {
  const bool has_length = request.has_header("Content-Length");
  const bool is_chunked = request.has_header("Transfer-Encoding");
  if (has_length && (is_chunked || request.get_header_value_count("Content-Length") > 1)) {
    throw RequestError(400, "headers.Content-Length", "is given twice, or beside Transfer-Encoding; send one length");
  }
  if (is_chunked && request.get_header_value("Transfer-Encoding") != "chunked") {
    throw RequestError(501, "headers.Transfer-Encoding", "only chunked is supported");
  }
  if (!has_length) {
    if (!is_chunked && request.method == "POST") throw RequestError(411, "headers.Content-Length", "missing; a body needs its length");
    return;
  }
  const std::string text = request.get_header_value("Content-Length");
  uint64_t length = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, length);
  if (text.empty() || stop != end || error == std::errc::invalid_argument) {
    throw RequestError(400, "headers.Content-Length", "is not a number of bytes");
  }
  if (error != std::errc() || length > static_cast<uint64_t>(limits.max_body)) {
    throw RequestError(413, "body", "has " + text + " bytes, at most " + std::to_string(limits.max_body) + " are read (--max-body)");
  }
}

}  // namespace

std::string route_label(const std::string& path) { return method_of(path).empty() ? "other" : path; }

void check_head(const httplib::Request& request, const Limits& limits) {
  const std::string method = method_of(request.path);
  if (method.empty()) throw RequestError(404, "path", "no such route; known ones: POST /v1/score, POST /v1/retrieve, GET /healthz, GET /metrics");
  if (request.method != method) throw RequestError(405, "method", request.path + " takes " + method);
  if (request.has_header("Range")) throw RequestError(400, "headers.Range", "answers are sent whole; leave the header out");
  check_length(request, limits);
  if (method == "GET" && announces_body(request)) throw RequestError(400, "body", "a GET takes no body");
  if (request.has_header("Content-Encoding")) throw RequestError(415, "headers.Content-Encoding", "send the body as it is, uncompressed");
  if (request.is_multipart_form_data()) throw RequestError(415, "headers.Content-Type", "send the JSON itself as the body, not a form");
}

std::string read_body(const httplib::ContentReader& reader, const Limits& limits, const Deadline& deadline) {
  std::string body;
  bool too_large = false;
  const bool complete = reader([&](const char* data, size_t size) {
    too_large = body.size() + size > static_cast<size_t>(limits.max_body);
    if (too_large || deadline.passed()) return false;
    body.append(data, size);
    return true;
  });
  if (too_large) throw RequestError(413, "body", "has more than " + std::to_string(limits.max_body) + " bytes (--max-body)");
  if (!complete && deadline.passed()) throw RequestError(408, "body", "did not arrive within " + std::to_string(limits.timeout_ms) + " ms");
  if (!complete) throw RequestError(400, "body", "ends before its length, or stalls");
  return body;
}

void answer_error(const httplib::Request& request, const RequestError& error, bool body_was_read, httplib::Response* response) {
  response->status = error.status();
  if (error.status() == 405) response->set_header("Allow", method_of(request.path));
  if (error.status() == 503) response->set_header("Retry-After", "1");
  const auto body = std::make_shared<const std::string>(error_body(error.field(), error.what()));
  if (body_was_read || !announces_body(request)) {
    response->set_content(*body, "application/json");
    return;
  }
  response->set_header("Connection", "close");
  // a provider that has sent everything and then fails: httplib's way of closing a connection after an answer
  response->set_content_provider(body->size(), "application/json", [body](size_t, size_t, httplib::DataSink& sink) {
    sink.write(body->data(), body->size());
    return false;
  });
}

}  // namespace crosstower
