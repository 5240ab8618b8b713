// The output of `plan` and `status` on a sweep: a table, or JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jobs/sweep/cells.h"
#include "jobs/sweep/price.h"
#include "jobs/sweep/submission.h"

namespace winnow::sweep {

// A sweep with the states of its cells, as they are now.
struct SweepView {
  const Sweep& sweep;
  std::vector<CellStatus> states;  // by cell
  std::string note;                // of Slurm, one line; "" for none
};

// Finds the states of the cells. `queue`: cells in queues, by name; `note`: what is to be said about it, "" for
// nothing.
SweepView look_at(const Sweep& sweep, const std::map<std::string, QueueEntry>& queue, const std::string& note);

std::string status_text(const SweepView& view);
nlohmann::json status_json(const SweepView& view);

// Return the text and JSON of `plan`. `prices`: by cell.
std::string plan_text(const SweepView& view, const std::vector<Price>& prices);
nlohmann::json plan_json(const SweepView& view, const std::vector<Price>& prices);

// Returns the finished cells whose inputs have changed on the disk since, one line each.
std::vector<std::string> outdated(const SweepView& view);

// ---- what a sweep file was when it was last submitted ---------------------------------------------------------------

// Returns what a submission keeps of the sweep, for write_submission.
nlohmann::json submission_record(const Sweep& sweep);
// Returns lines on what has changed since the newest submission of this sweep in its output directory; none where
// nothing has or there is no submission.
std::vector<std::string> changes_since_submission(const Sweep& sweep);

}  // namespace winnow::sweep
