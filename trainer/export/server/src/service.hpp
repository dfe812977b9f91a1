// The HTTP server: routes, the artefact they answer from, and its swap.
#pragma once

#include <httplib.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "artefact.hpp"
#include "compute_slots.hpp"
#include "metrics.hpp"
#include "options.hpp"

namespace crosstower {

class Service {
 public:
  // `artefact` is what the first requests are answered from.
  Service(const Options& options, std::shared_ptr<const Artefact> artefact);

  // Binds the address; the port. UserError where it is taken or not allowed.
  int bind();

  // Serves until stop(), then finishes the requests that have arrived; false where listening failed.
  bool serve();
  // Returns once serve(), called by another thread, accepts connections or has failed; a stop() before would be lost.
  void wait_until_serving() const;
  void stop();

  // Verifies and loads what --artefact names now and swaps to it; keeps the present one where that fails. Requests that have begun
  // finish on the artefact they began with.
  void reload();

 private:
  std::shared_ptr<const Artefact> artefact() const;
  void handle_errors();
  void add_get_routes();
  void add_post_route(const std::string& path, Route route);
  std::string compute(Route route, std::string_view body, const Deadline& deadline);
  void record(const httplib::Request& request, const httplib::Response& response);

  Options options_;
  ComputeSlots slots_;
  Metrics metrics_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Artefact> artefact_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> ended_ = false;
  httplib::Server server_;
};

}  // namespace crosstower
