package uapi

// linux/if.h: the length of an interface's name, with the NUL.
const IFNAMSIZ = 16

// linux/if_ether.h: protocols of Ethernet frames.
const (
	ETH_P_IP   = 0x0800
	ETH_P_ARP  = 0x0806
	ETH_P_IPV6 = 0x86dd
)

// linux/if_packet.h: types of packets.
const PACKET_HOST = 0

// linux/in.h: IP protocols.
const (
	IPPROTO_ICMP = 1
	IPPROTO_IGMP = 2
	IPPROTO_TCP  = 6
	IPPROTO_UDP  = 17
	IPPROTO_SCTP = 132
)

// linux/in6.h: extension headers of IPv6, and ICMPv6.
const (
	IPPROTO_HOPOPTS  = 0
	IPPROTO_ROUTING  = 43
	IPPROTO_FRAGMENT = 44
	IPPROTO_ICMPV6   = 58
	IPPROTO_DSTOPTS  = 60
)

// linux/netfilter.h: families of protocols.
const (
	NFPROTO_INET   = 1
	NFPROTO_IPV4   = 2
	NFPROTO_BRIDGE = 7
	NFPROTO_IPV6   = 10
)

// linux/netfilter/nf_tables.h: registers, enum nft_registers.
const (
	NFT_REG_1    = 1
	NFT_REG32_00 = 8
)

// linux/netfilter/nf_tables.h: flags of sets, enum nft_set_flags.
const (
	NFT_SET_INTERVAL = 0x4
	NFT_SET_TIMEOUT  = 0x10
)

// linux/netfilter/nf_tables.h: kinds of rejections, enum nft_reject_types.
const (
	NFT_REJECT_ICMP_UNREACH  = 0
	NFT_REJECT_TCP_RST       = 1
	NFT_REJECT_ICMPX_UNREACH = 2
)

// linux/netfilter/nf_tables.h: attributes of a log expression, enum nft_log_attributes.
const (
	NFTA_LOG_GROUP  = 1
	NFTA_LOG_PREFIX = 2
	NFTA_LOG_LEVEL  = 5
)
