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

JobQueue::JobQueue(Handler handler, std::size_t most_waiting)
    : handler_(std::move(handler)), most_waiting_(most_waiting), worker_([this] { run(); }) {}

JobQueue::~JobQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const std::shared_ptr<Job>& job : waiting_) job->done = nullptr;  // it holds who holds the job
    waiting_.clear();
    if (current_ != nullptr) current_->cancelled = true;
  }
  changed_.notify_one();
  worker_.join();
}

bool JobQueue::add(std::shared_ptr<Job> job) {
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= most_waiting_) return false;
  waiting_.push_back(std::move(job));
  changed_.notify_one();
  return true;
}

void JobQueue::cancel(const std::shared_ptr<Job>& job) {
  job->cancelled = true;
  {
    const std::lock_guard lock(mutex_);
    if (std::erase(waiting_, job) == 0) return;
  }
  std::exchange(job->done, nullptr)(cancelled());
}

std::shared_ptr<Job> JobQueue::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (current_ != nullptr && current_->name == name) return current_;
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const std::shared_ptr<Job>& job) { return job->name == name; });
  return found == waiting_.end() ? nullptr : *found;
}

void JobQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    current_ = std::move(waiting_.front());
    waiting_.pop_front();
    const std::shared_ptr<Job> job = current_;
    lock.unlock();
    job->started = true;
    try {
      std::exchange(job->done, nullptr)(answer(handler_, *job));
    } catch (...) {  // no memory even for that: the connection goes with the job
    }
    lock.lock();
    current_ = nullptr;
  }
}

}  // namespace manyheads::server
