#include "server/jobs.hpp"

#include <algorithm>
#include <exception>
#include <manyheads/error.hpp>
#include <new>
#include <utility>

#include "server/guard.hpp"

namespace manyheads::server {
namespace {

Response cancelled() { return refusal(409, "cancelled"); }

// The handler's answer, or what its exception says.
Response answer(const Handler& handler, Job& job) {
  if (job.cancelled) return cancelled();
  try {
    Response response = handler(job.question, [&job](double share) {
      job.share = share;
      return !job.cancelled;
    });
    return job.cancelled ? cancelled() : std::move(response);
  } catch (const Error& error) {
    return job.cancelled ? cancelled() : refusal(error.code() == ErrorCode::kOutOfMemory ? 500 : 400, error.what());
  } catch (const std::bad_alloc&) {
    return refusal(500, "not enough memory");
  } catch (const std::exception& error) {
    return refusal(500, error.what());
  } catch (...) {
    return refusal(500, "the question failed");
  }
}

}  // namespace

JobQueue::JobQueue(Handler handler, TakesLong takes_long, std::size_t most_waiting)
    : handler_(std::move(handler)),
      takes_long_(std::move(takes_long)),
      most_waiting_(most_waiting),
      short_worker_([this] { run(short_); }) {
  try {
    long_worker_ = std::thread([this] { run(long_); });
  } catch (...) {
    stop();
    throw;
  }
}

JobQueue::~JobQueue() { stop(); }

void JobQueue::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (Lane* lane : {&short_, &long_}) {
      for (const std::shared_ptr<Job>& job : lane->waiting) job->done = nullptr;  // it holds who holds the job
      lane->waiting.clear();
      if (lane->current != nullptr) lane->current->cancelled = true;
    }
  }
  changed_.notify_all();
  for (std::thread* worker : {&short_worker_, &long_worker_}) {
    if (worker->joinable()) worker->join();
  }
}

bool JobQueue::add(std::shared_ptr<Job> job) {
  const std::lock_guard lock(mutex_);
  if (short_.waiting.size() + long_.waiting.size() >= most_waiting_) return false;
  short_.waiting.push_back(std::move(job));
  changed_.notify_all();
  return true;
}

void JobQueue::cancel(const std::shared_ptr<Job>& job) {
  job->cancelled = true;
  {
    const std::lock_guard lock(mutex_);
    if (std::erase(short_.waiting, job) + std::erase(long_.waiting, job) == 0) return;
  }
  std::exchange(job->done, nullptr)(cancelled());
}

std::shared_ptr<Job> JobQueue::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const Lane* lane : {&short_, &long_}) {
    if (lane->current != nullptr && lane->current->name == name) return lane->current;
    for (const std::shared_ptr<Job>& job : lane->waiting) {
      if (job->name == name) return job;
    }
  }
  return nullptr;
}

// Whether the job is the other thread's from here on.
bool JobQueue::hand_over(const std::shared_ptr<Job>& job) {
  try {
    if (!takes_long_ || !takes_long_(job->question)) return false;
    const std::lock_guard lock(mutex_);
    // One that is cancelled has its answer at once.
    if (stopping_ || job->cancelled) return false;
    long_.waiting.push_back(job);
    short_.current = nullptr;
  } catch (...) {  // what is wrong with the question the handler says
    return false;
  }
  changed_.notify_all();
  return true;
}

void JobQueue::run(Lane& lane) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !lane.waiting.empty(); });
    if (stopping_) return;
    lane.current = std::move(lane.waiting.front());
    lane.waiting.pop_front();
    const std::shared_ptr<Job> job = lane.current;
    lock.unlock();
    if (&lane != &short_ || !hand_over(job)) {
      job->started = true;
      try {
        std::exchange(job->done, nullptr)(answer(handler_, *job));
      } catch (...) {  // no memory even for that: the connection goes with the job
      }
    }
    lock.lock();
    lane.current = nullptr;
  }
}

}  // namespace manyheads::server
