// SPDX-License-Identifier: Apache-2.0
#include "base/memory.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

namespace mlstm::verify {
namespace {

namespace fs = std::filesystem;

std::optional<std::uint64_t> number_in(const fs::path& file) {
  std::uint64_t number = 0;
  return std::ifstream(file) >> number ? std::optional(number) : std::nullopt;
}

/// The number behind `key` in a file of lines such as "MemAvailable:   123 kB" or "inactive_file 123"; 0 if there is
/// none.
std::uint64_t number_of(const fs::path& file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t number = 0;
    if (words >> name >> number && name == key) return number;
  }
  return 0;
}

void lower(MemoryRoom& room, std::uint64_t bytes, const std::string& limited_by) {
  if (bytes < room.bytes) room = {bytes, limited_by};
}

std::uint64_t difference(std::uint64_t most, std::uint64_t used) { return most > used ? most - used : 0; }

/// A version of control groups: where it is mounted, and the names of its files.
struct ControlGroups {
  std::string controllers;  ///< the second field of its line in /proc/self/cgroup
  fs::path mount;
  const char *limit, *usage, *reclaimable;
};

/// The groups that the process is in, from its own up to the mount. In a container the path may be that of the host,
/// which is not there: then the mount is the group.
void lower_to_groups(MemoryRoom& room, const fs::path& root, const ControlGroups& version) {
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos || line.substr(first + 1, second - first - 1) != version.controllers) continue;
    fs::path path = fs::path(line.substr(second + 1)).relative_path();
    for (;; path = path.parent_path()) {
      const fs::path group = root / version.mount / path;
      const auto most = number_in(group / version.limit), used = number_in(group / version.usage);
      if (most && used) {
        const std::uint64_t cache = number_of(group / "memory.stat", version.reclaimable);
        lower(room, difference(*most, difference(*used, cache)), "the control group");
      }
      if (path.empty()) break;
    }
  }
}

void lower_to_limit(MemoryRoom& room, int resource, std::uint64_t pages_in_use, const char* name) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  lower(room, difference(limit.rlim_cur, pages_in_use), name);
}

}  // namespace

std::string reason_of(const std::exception& error) {
  const bool bare =
      dynamic_cast<const std::bad_alloc*>(&error) != nullptr && dynamic_cast<const OutOfMemory*>(&error) == nullptr;
  return bare ? "the verifier ran out of memory" : error.what();
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr double kMebi = 0x1p20, kGibi = 0x1p30;
  const auto size = static_cast<double>(bytes);
  return size < kGibi ? fmt::format("{:.0f} MiB", size / kMebi) : fmt::format("{:.1f} GiB", size / kGibi);
}

std::uint64_t machine_memory() {
  std::uint64_t memory =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (const auto most = number_in(path)) memory = std::min(memory, *most);
  return memory;
}

MemoryRoom available_memory(const fs::path& root) {
  MemoryRoom room;
  const fs::path machine = root / "proc/meminfo", process = root / "proc/self/status";
  if (const std::uint64_t free = number_of(machine, "MemAvailable:"); free > 0)
    lower(room, (free + number_of(machine, "SwapFree:")) << 10, "the machine");
  lower_to_groups(room, root, {"", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"});
  lower_to_groups(
      room, root,
      {"memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"});
  lower_to_limit(room, RLIMIT_AS, number_of(process, "VmSize:") << 10, "the limit of address space (ulimit -v)");
  lower_to_limit(room, RLIMIT_DATA, number_of(process, "VmData:") << 10, "the limit of data (ulimit -d)");
  return room;
}

}  // namespace mlstm::verify
