#include "service.hpp"

#include <ATen/Parallel.h>

#include <chrono>
#include <exception>
#include <thread>

#include "answer.hpp"
#include "errors.hpp"
#include "log.hpp"
#include "transport.hpp"

namespace crosstower {
namespace {

using Clock = std::chrono::steady_clock;

// When the request began that this thread is answering; a connection's requests are read, answered and recorded by one thread.
thread_local Clock::time_point request_start;
thread_local std::string request_error;

std::string first_line(const char* text) { return std::string(text).substr(0, std::string(text).find('\n')); }

// Answers the exception that is being handled; only a RequestError's words go to the client.
void answer_exception(const httplib::Request& request, bool body_was_read, httplib::Response* response) {
  try {
    throw;
  } catch (const RequestError& error) {
    request_error = error.field() + ": " + error.what();
    answer_error(request, error, body_was_read, response);
  } catch (const std::bad_alloc&) {
    request_error = "out of memory";
    answer_error(request, RequestError(503, "requests", "not enough memory for this request; send fewer at a time"), body_was_read, response);
  } catch (const std::exception& error) {
    request_error = first_line(error.what());
    answer_error(request, RequestError(500, "requests", "the server failed; its log says why"), body_was_read, response);
  }
}

// The words for an answer that httplib itself chose, of a request that it could not read.
RequestError refusal(int status) {
  if (status == 414) return {414, "path", "is too long"};
  if (status == 416) return {400, "headers.Range", "answers are sent whole; leave the header out"};
  if (status == 404) return {404, "path", "no such route"};
  return {status, "request", "is not HTTP/1.1 as this server reads it"};
}

}  // namespace

Service::Service(const Options& options, std::shared_ptr<const Artefact> artefact)
    : options_(options), slots_(options.workers), artefact_(std::move(artefact)) {
  server_.new_task_queue = [this] { return new httplib::ThreadPool(static_cast<size_t>(options_.connections)); };
  server_.set_keep_alive_timeout(options_.keep_alive_s);
  server_.set_keep_alive_max_count(1'000'000);
  server_.set_tcp_nodelay(true);  // headers and body are two writes: the second must not wait for the first one's acknowledgement
  const auto timeout = std::chrono::milliseconds(std::min<int64_t>(options_.limits.timeout_ms, 5'000));
  server_.set_read_timeout(timeout);
  server_.set_write_timeout(timeout);
  server_.set_payload_max_length(static_cast<size_t>(options_.limits.max_body));
  handle_errors();
  add_get_routes();
  add_post_route("/v1/score", Route::kScore);
  add_post_route("/v1/retrieve", Route::kRetrieve);
}

std::shared_ptr<const Artefact> Service::artefact() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return artefact_;
}

void Service::handle_errors() {
  using Handled = httplib::Server::HandlerResponse;
  server_.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
    request_start = Clock::now();
    request_error.clear();
    // a client that is not told would send its next request to a server that is gone
    if (stopping_) response.set_header("Connection", "close");
    try {
      check_head(request, options_.limits);
      return Handled::Unhandled;
    } catch (...) {
      answer_exception(request, false, &response);
      return Handled::Handled;
    }
  });
  server_.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty() || response.content_length_ > 0) return;  // one of ours, worded already
    answer_error(request, refusal(response.status), false, &response);
  });
  server_.set_exception_handler([](const httplib::Request& request, httplib::Response& response, std::exception_ptr failure) {
    try {
      std::rethrow_exception(failure);
    } catch (...) {
      answer_exception(request, false, &response);
    }
  });
  server_.set_logger([this](const httplib::Request& request, const httplib::Response& response) { record(request, response); });
}

void Service::add_get_routes() {
  server_.Get("/healthz", [this](const httplib::Request&, httplib::Response& response) {
    const nlohmann::ordered_json body = {{"status", "ok"}, {"artefact", artefact()->manifest().artefact}};
    response.set_content(body.dump(), "application/json");
  });
  server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics_.page(artefact()->manifest()), "text/plain; version=0.0.4");
  });
}

void Service::add_post_route(const std::string& path, Route route) {
  server_.Post(path, [this, route](const httplib::Request& request, httplib::Response& response, const httplib::ContentReader& reader) {
    bool body_was_read = false;
    try {
      const Deadline deadline(options_.limits.timeout_ms);
      const std::string body = read_body(reader, options_.limits, deadline);
      body_was_read = true;
      response.body = compute(route, body, deadline);
      response.set_header("Content-Type", "application/json");
      response.status = 200;
    } catch (...) {
      response.body.clear();
      answer_exception(request, body_was_read, &response);
    }
  });
}

std::string Service::compute(Route route, std::string_view body, const Deadline& deadline) {
  // each of httplib's threads has its own number of OpenMP threads, which torch sets from its own on this call
  thread_local const bool ready = (at::init_num_threads(), true);
  static_cast<void>(ready);
  const auto slot = slots_.wait(deadline);
  return artefact()->answer(route, body, options_.limits, deadline);
}

void Service::record(const httplib::Request& request, const httplib::Response& response) {
  // a request that could not be read has no start of its own
  const bool was_read = request_start != Clock::time_point();
  const double seconds = was_read ? std::chrono::duration<double>(Clock::now() - request_start).count() : 0.0;
  metrics_.count_request(route_label(request.path), response.status, seconds);
  if (response.status >= 400 || options_.log_requests) {
    log_line(response.status >= 500 ? "error" : "info", "request",
             {{"method", request.method}, {"path", request.path.substr(0, 128)}, {"status", response.status},
              {"milliseconds", seconds * 1e3}, {"error", request_error}});
  }
  request_start = Clock::time_point();
  request_error.clear();
}

int Service::bind() {
  const int port = options_.port == 0 ? server_.bind_to_any_port(options_.host)
                                      : (server_.bind_to_port(options_.host, options_.port) ? options_.port : -1);
  if (port < 0) {
    throw UserError("--host=" + options_.host + " --port=" + std::to_string(options_.port) +
                    ": can't be bound: taken, not allowed, or no address of this machine; choose another, or --port 0 for any free one");
  }
  return port;
}

bool Service::serve() {
  const bool ended_well = server_.listen_after_bind();
  ended_ = true;
  return ended_well || stopping_;
}

void Service::wait_until_serving() const {
  while (!server_.is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void Service::stop() {
  stopping_ = true;
  server_.stop();
}

void Service::reload() {
  try {
    const std::shared_ptr<const Artefact> next = Artefact::load(options_.artefact, options_.limits);
    std::string before;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      before = artefact_->manifest().artefact;
      artefact_ = next;
    }
    metrics_.count_swap(true);
    log_line("info", "swap", {{"artefact", next->manifest().artefact}, {"before", before}, {"folder", next->folder().string()}});
  } catch (const std::exception& error) {
    metrics_.count_swap(false);
    log_line("error", "swap_failed", {{"error", error.what()}, {"artefact", artefact()->manifest().artefact}});
  }
}

}  // namespace crosstower
