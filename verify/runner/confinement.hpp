// SPDX-License-Identifier: Apache-2.0
// What keeps a kernel to its own process, so that it cannot write a verdict: not into the verifier's memory, not into
// another kernel's process, and not into the files of a report.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace mlstm::verify {

/// Parts, as bits. Not every system has them all. What all have is that the verifier cannot be traced (refuse_tracing).
enum Confinement : std::uint32_t {
  kNamespaces = 1,  ///< user, PID and mount namespaces of its own, with a /proc that shows nothing else
  kFiles = 2,       ///< Landlock (Linux 5.13): writes no files but temporary ones of its own
  kCalls = 4,       ///< seccomp: no system calls that reach into other processes
  kPrivileges = 8,  ///< no capabilities, not even as root
  kAllConfinement = kNamespaces | kFiles | kCalls | kPrivileges
};

/// Processes of the same user cannot read or write this process's memory from now on, and it leaves no core file.
/// Throws std::runtime_error.
void refuse_tracing();

/// Whose verdicts are exposed, a word for each part that is missing: "processes", "files", "system calls",
/// "privileges".
std::vector<std::string> exposed_by(std::uint32_t missing);

// ---- a worker's side. All throw std::runtime_error, after which the process is to end.

/// For a process of one thread: its next children are in namespaces of their own, of which the first is the init
/// process, and calls see_own_processes.
void enter_namespaces();
void see_own_processes();

/// For good: no capability, and none to be had by executing another program.
void give_up_privileges();

/// Files can be read, but not written, except below `folder` (empty: nowhere), and devices that compute.
void protect_files(const std::string& folder);

/// No ptrace and the like. Without namespaces, which hide other processes, no signal to one of them either.
void forbid_calls(bool has_namespaces);

/// What of Confinement cannot be had here; tried in child processes. Never throws.
std::uint32_t missing_confinement();

}  // namespace mlstm::verify
