/* SPDX-License-Identifier: Apache-2.0 */
/* A program that uses the installed library, in C and in C++: a region of twice the cap keeps what was written to it. */
#include <spillway.h>

#include <stdio.h>

#define RAM   ((uint64_t)16 << 20)
#define BYTES ((size_t)32 << 20)

int main(void)
{
	struct spw_space_options o = SPW_SPACE_OPTIONS;
	struct spw_file_options f = SPW_FILE_OPTIONS;
	struct spw_space *space;
	struct spw_region *region;
	unsigned tier;

	o.ram = RAM;
	int r = spw_space_create(&o, &space);
	r = r ? r : spw_space_add_file(space, &f, &tier);
	r = r ? r : spw_region_create(space, BYTES, &region);
	if (r) {
		fprintf(stderr, "use: error %d\n", -r);
		return 1;
	}
	uint64_t *v = (uint64_t *)spw_region_address(region);
	size_t n = spw_region_size(region) / sizeof(*v), wrong = 0;
	for (size_t i = 0; i < n; i++)
		v[i] = i * 0x9e3779b97f4a7c15u;
	for (size_t i = 0; i < n; i++)
		wrong += v[i] != i * 0x9e3779b97f4a7c15u;

	struct spw_space_stats s;
	spw_space_stats(space, &s, sizeof(s));
	spw_region_destroy(region);
	r = spw_space_destroy(space);
	printf("%s: %zu wrong, %s, destroyed: %d\n", spw_version(), wrong,
	       s.out_pages ? "pages went out" : "nothing went out", r);
	return 0;
}
