// What `plan` and `status` say of a sweep: a table, or JSON.
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

// `queue`: what is known of cells in queues, by name; `note`: what is to be said about it, "" for nothing.
SweepView look_at(const Sweep& sweep, const std::map<std::string, QueueEntry>& queue, const std::string& note);

std::string status_text(const SweepView& view);
nlohmann::json status_json(const SweepView& view);

// `prices` by cell.
std::string plan_text(const SweepView& view, const std::vector<Price>& prices);
nlohmann::json plan_json(const SweepView& view, const std::vector<Price>& prices);

// Finished cells whose inputs have changed on the disk since, one line each.
std::vector<std::string> outdated(const SweepView& view);

// ---- what a sweep file was when it was last submitted ---------------------------------------------------------------

// For write_submission.
nlohmann::json submission_record(const Sweep& sweep);
// What has changed since the newest submission of this sweep in its output directory, in lines; none where there is
// none or nothing has.
std::vector<std::string> changes_since_submission(const Sweep& sweep);

}  // namespace winnow::sweep
