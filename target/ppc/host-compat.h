/*
 * The CPU compatibility modes that the host lets a guest have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_PPC_HOST_COMPAT_H
#define TARGET_PPC_HOST_COMPAT_H

/*
 * A set of modes is a mask of these bits, which are those of the kernel's
 * KVM_PPC_GET_COMPAT_CAPS.  They begin with POWER9: older modes cannot be
 * expressed, and are left to KVM.
 */
#define PPC_HOST_COMPAT_POWER9      (1ULL << 62)
#define PPC_HOST_COMPAT_POWER10     (1ULL << 61)
#define PPC_HOST_COMPAT_POWER11     (1ULL << 60)

/**
 * PPCHostCompatSource:
 * @PPC_HOST_COMPAT_NONE: nothing limits the guest: TCG, KVM PR, bare metal
 * @PPC_HOST_COMPAT_KVM: the kernel's KVM_PPC_GET_COMPAT_CAPS
 * @PPC_HOST_COMPAT_DEVICE_TREE: "cpu-version" of the host's CPU nodes (LoPAPR)
 *
 * Where the set of modes comes from.
 */
typedef enum PPCHostCompatSource {
    PPC_HOST_COMPAT_NONE,
    PPC_HOST_COMPAT_KVM,
    PPC_HOST_COMPAT_DEVICE_TREE,
} PPCHostCompatSource;

/**
 * PPCHostCompat:
 * @modes: the set; zero where the host's modes are not known
 * @cpu_pvr: logical PVR of the host CPU itself, zero where it has none
 * @source: where @modes comes from
 * @kvm_hv: KVM HV sets the modes of this process's vCPUs: what it refuses
 *          must not be replaced by raw mode, as with KVM PR
 *
 * What this process knows of its host.  Constant once the accelerator is up.
 */
typedef struct PPCHostCompat {
    uint64_t modes;
    uint32_t cpu_pvr;
    PPCHostCompatSource source;
    bool kvm_hv;
} PPCHostCompat;

/**
 * ppc_host_compat: what is known of the host
 *
 * Returns: the one instance, never NULL.  All zero until
 * ppc_host_compat_set() was called.
 */
const PPCHostCompat *ppc_host_compat(void);

/**
 * ppc_host_compat_set: state what the host is
 * @host: copied.  Where its set of modes is empty its source becomes
 *        %PPC_HOST_COMPAT_NONE.
 */
void ppc_host_compat_set(const PPCHostCompat *host);

/**
 * ppc_host_compat_from_bits: the set that a kernel's answer means
 * @bits: compat_capabilities of struct kvm_ppc_compat_caps
 * @cpu_pvr: logical PVR of the host CPU itself, zero where it has none
 *
 * Returns: @bits without those that this QEMU does not know, or whose mode is
 * newer than the host CPU.
 */
uint64_t ppc_host_compat_from_bits(uint64_t bits, uint32_t cpu_pvr);

/**
 * ppc_host_compat_from_cpu_version: the set that a partition's mode means
 * @version: "cpu-version" of a CPU node
 *
 * A partition in a mode has that mode and all older ones.
 *
 * Returns: the set; zero where @version is a raw PVR, an unknown logical
 * PVR, or older than POWER9, none of which limits a guest.
 */
uint64_t ppc_host_compat_from_cpu_version(uint32_t version);

/**
 * ppc_host_compat_allows: may a guest have this mode?
 * @pvr: logical PVR, or zero for raw mode
 *
 * Raw mode is the mode of the host CPU itself.  A mode older than POWER9 is
 * allowed here, since only KVM can tell.
 *
 * Returns: false where the host's modes are known and @pvr is not one.
 */
bool ppc_host_compat_allows(uint32_t pvr);

/**
 * ppc_host_compat_is_limited: does the host hide what its CPU could do?
 *
 * Returns: true where raw mode is out of a guest's reach.
 */
bool ppc_host_compat_is_limited(void);

/**
 * ppc_host_compat_older: the newest mode of the set that is older than @pvr
 * @pvr: logical PVR; UINT32_MAX asks for the newest of all
 *
 * Returns: a logical PVR, or zero where there is none.
 */
uint32_t ppc_host_compat_older(uint32_t pvr);

/**
 * ppc_host_compat_newer: the oldest mode of the set that is newer than @pvr
 * @pvr: logical PVR; zero asks for the oldest of all
 *
 * Returns: a logical PVR, or zero where there is none.
 */
uint32_t ppc_host_compat_newer(uint32_t pvr);

/**
 * ppc_host_compat_source_name: the name of a source, as users read it
 * @source: any value of the type
 *
 * Returns: a constant string.
 */
const char *ppc_host_compat_source_name(PPCHostCompatSource source);

/**
 * kvmppc_host_compat_init: learn the host's modes from KVM HV
 * @cpu_pvr: logical PVR of the host CPU, zero where it has none
 *
 * Asks the kernel, and falls back to the host's device tree; warns where
 * neither gives a plain answer.  To be called once the VM exists.
 */
void kvmppc_host_compat_init(uint32_t cpu_pvr);

#endif /* TARGET_PPC_HOST_COMPAT_H */
