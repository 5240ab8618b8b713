// How this process was started: alone, or by a launcher as one of the ranks of a job.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace winnow::runtime {

// The environment, by name; none where the variable is not set.
using Lookup = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> environment_value(const char* name);

// Whether a launcher may have started other processes beside this one, by what launchers leave in the environment.
// False where there is none, and where each that was there counts one rank.
bool may_have_peers(const Lookup& lookup = environment_value);

// Whether mpirun of Open MPI started this process.
bool is_under_mpirun(const Lookup& lookup = environment_value);

// The home folder of this user by the password file, "/" for one without an entry there (containers).
std::string home_of_user();

// What mpirun needs to start ranks on this machine and does not have, to be set in its environment:
//   - HOME, which PMIx looks up in the password file else, and dies where that has no entry;
//   - TMPDIR, where the one in use cannot be written (a read-only or full /tmp);
//   - the permission to run as root, which Open MPI asks for: who starts winnow as root has decided that already.
// Nothing that the user has set is changed, but for a TMPDIR that nobody can write.
std::vector<std::pair<std::string, std::string>> environment_for_mpirun();

// A folder for temporary files in which this process can make and fill one: that of TMPDIR, else /tmp, /var/tmp or
// /dev/shm; none where it can in none of them.
std::optional<std::string> writable_temporary_directory(const Lookup& lookup = environment_value);

}  // namespace winnow::runtime
