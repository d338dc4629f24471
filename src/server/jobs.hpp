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
  std::function<void(Response)> done;  // called once, on a worker or in cancel, unless the queue ends before
  std::atomic<double> share{0};
  std::atomic<bool> started{false}, cancelled{false};
};

// Answers questions on two threads of its own. One takes them as they come, and hands those that take long to the
// other: a short question waits for short ones alone.
class JobQueue {
 public:
  JobQueue(Handler handler, TakesLong takes_long, std::size_t most_waiting);
  ~JobQueue();  // cancels all, and waits for those being worked on

  // False where too many wait.
  bool add(std::shared_ptr<Job> job);
  // Ends it: at once where it waits, else when it next reports its progress.
  void cancel(const std::shared_ptr<Job>& job);
  // The job of that name that waits or is worked on, or null.
  std::shared_ptr<Job> find(const std::string& name) const;

 private:
  struct Lane {
    std::deque<std::shared_ptr<Job>> waiting{};
    std::shared_ptr<Job> current{};
  };
  void run(Lane& lane);
  void stop();
  bool hand_over(const std::shared_ptr<Job>& job);

  const Handler handler_;
  const TakesLong takes_long_;
  const std::size_t most_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Lane short_, long_;
  bool stopping_ = false;
  std::thread short_worker_, long_worker_;
};

}  // namespace manyheads::server
