// SPDX-License-Identifier: Apache-2.0
// What most of a C++ compiler's day is: a small program, and the library that it includes. UNIT tells the units apart.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

namespace unit {

template <typename Map> Map count(std::istream &in)
{
	Map counts;

	for (std::string line; std::getline(in, line);) {
		std::istringstream words(line);

		for (std::string word; words >> word;)
			counts[word] += UNIT;
	}
	return counts;
}

template <typename Map> std::vector<std::pair<std::string, int>> sorted(const Map &counts)
{
	std::vector<std::pair<std::string, int>> all(counts.begin(), counts.end());

	std::stable_sort(all.begin(), all.end(), [](const auto &a, const auto &b) { return a.second > b.second; });
	return all;
}

} // namespace unit

int main(int argc, char **)
{
	std::mt19937_64 random(UNIT);
	auto all = argc > 1 ? unit::sorted(unit::count<std::map<std::string, int>>(std::cin))
	                    : unit::sorted(unit::count<std::unordered_map<std::string, int>>(std::cin));

	std::shuffle(all.begin(), all.end(), random);
	for (const auto &[word, times] : all)
		std::cout << word << ' ' << times << '\n';
	return 0;
}
