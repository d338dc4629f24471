#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "server/http_server.hpp"

namespace manyheads::server {

// A question that waits, or is worked on.
struct Job {
  std::string name;  // empty: it cannot be asked for
  std::string question;
  std::function<void(Response)> done;  // called once, on the worker or in cancel, unless the queue ends before
  std::atomic<double> share{0};
  std::atomic<bool> started{false}, cancelled{false};
};

// Answers questions one after the other on a thread of its own.
class JobQueue {
 public:
  JobQueue(Handler handler, std::size_t most_waiting);
  ~JobQueue();  // cancels all, and waits for the one being worked on

  // False where too many wait.
  bool add(std::shared_ptr<Job> job);
  // Ends it: at once where it waits, else when it next reports its progress.
  void cancel(const std::shared_ptr<Job>& job);
  // The job of that name that waits or is worked on, or null.
  std::shared_ptr<Job> find(const std::string& name) const;

 private:
  void run();

  const Handler handler_;
  const std::size_t most_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> waiting_;
  std::shared_ptr<Job> current_;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace manyheads::server
