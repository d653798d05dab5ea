# shellcheck shell=bash
# Sourced: what makes a CPU run faster. What is set already stays.

# A thread that waits sleeps: on a shared machine one that spins makes a step 2 to 6 times slower. But first it looks
# some 0.1 to 0.5 ms for the next of a step's 700 parallel parts, most of which come sooner than it would wake.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
if [[ $OMP_WAIT_POLICY == PASSIVE ]]; then
  export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}" # which would overrule another policy
fi

# glibc gives the memory of a step back and faults it in again in the next; keeping it is 1.1 to 1.3 times faster.
# Blocks up to 1 GiB come from the heap: the kernel zeroes every page of a mapped block anew.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1073741824}"
# The heap shrinks only when 8 GiB at its top are free, so not between steps.
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-8589934592}"
# It grows 64 MiB at a time, in fewer system calls and in pieces that huge pages fit into.
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
# Ask for huge pages: one fault for 2 MiB in place of 512.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
