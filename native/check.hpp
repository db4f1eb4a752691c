// What the parts of the check program (check.cpp, check_programs.cpp) share.
#pragma once

#include <string>
#include <vector>

// Runs the step programs of a file, as they are and with words changed, on every instruction set; false if one of them ends
// otherwise than it should. The file is what tests/engines/program_file.py writes.
bool check_programs(const char* file, const std::vector<std::string>& sets);
