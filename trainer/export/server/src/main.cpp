// crosstower_server: answers scores and retrievals from an artefact of trainer.export.

#include <ATen/Parallel.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "artefact.hpp"
#include "errors.hpp"
#include "log.hpp"
#include "options.hpp"
#include "service.hpp"

namespace crosstower {
namespace {

// Signals are taken by sigwait in one thread, so that what they ask for is ordinary code; every thread that is started later inherits
// the mask.
sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGHUP, SIGTERM, SIGINT}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

void set_torch_threads(int threads) {
  at::set_num_threads(threads);
  at::set_num_interop_threads(1);  // the modules fork nothing; requests run side by side instead
}

// glibc returns a freed megabyte to the system, and the next request pays again for clearing and mapping it page by page: a quarter of
// the time of a small request. Kept, it costs nothing; `workers` requests at a time bound how much that is.
void keep_freed_memory(const Options& options) {
  mallopt(M_ARENA_MAX, static_cast<int>(options.workers) + 1);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

int serve(const Options& options) {
  const sigset_t signals = block_signals();
  set_torch_threads(options.threads);
  keep_freed_memory(options);
  std::shared_ptr<const Artefact> artefact = Artefact::load(options.artefact, options.limits);
  Service service(options, artefact);
  const int port = service.bind();
  std::atomic<bool> failed = false;
  std::thread listener([&] {
    failed = !service.serve();
    if (failed) kill(getpid(), SIGTERM);
  });
  service.wait_until_serving();
  const Manifest& manifest = artefact->manifest();
  log_line("info", "start", {{"artefact", manifest.artefact}, {"model", manifest.model}, {"task", manifest.task}, {"step", manifest.step},
                             {"folder", artefact->folder().string()}, {"host", options.host}, {"port", port}, {"workers", options.workers}});
  std::printf("listening on http://%s:%d\n", options.host.c_str(), port);
  std::fflush(stdout);
  artefact.reset();  // a swap frees it once its last request is answered
  for (int signal = 0; sigwait(&signals, &signal) == 0 && signal == SIGHUP;) service.reload();
  log_line("info", "stop", {{"port", port}});
  service.stop();
  listener.join();
  log_line(failed ? "error" : "info", "exit", {{"port", port}});
  return failed ? kBug : kOk;
}

int run(int argc, const char* const* argv) {
  try {
    const Options options = parse_options(argc, argv);
    if (options.help) {
      std::fputs(usage().c_str(), stdout);
      return kOk;
    }
    return serve(options);
  } catch (const UserError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kUserError;
  } catch (const ArtefactError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return kBadArtefact;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\nThis is a bug of the server; please report it.\n", error.what());
    return kBug;
  }
}

}  // namespace
}  // namespace crosstower

int main(int argc, char** argv) { return crosstower::run(argc, argv); }
