package custom

// services are the names of ports that a file can use. IANA's registry and Debian's /etc/services agree on them. They are
// compiled in, since the agent's image has no /etc/services, and the meaning of a name must not depend on the node.
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37, "domain": 53, "bootps": 67, "bootpc": 68,
	"tftp": 69, "http": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "netbios-ns": 137,
	"netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "snmp": 161, "snmp-trap": 162, "bgp": 179, "ldap": 389,
	"https": 443, "microsoft-ds": 445, "kpasswd": 464, "isakmp": 500, "syslog": 514, "dhcpv6-client": 546,
	"dhcpv6-server": 547, "submission": 587, "ldaps": 636, "domain-s": 853, "imaps": 993, "pop3s": 995,
	"openvpn": 1194, "ms-sql-s": 1433, "radius": 1812, "radius-acct": 1813, "nfs": 2049, "mysql": 3306,
	"ms-wbt-server": 3389, "ipsec-nat-t": 4500, "sip": 5060, "sip-tls": 5061, "xmpp-client": 5222, "mdns": 5353,
	"postgresql": 5432, "amqps": 5671, "amqp": 5672, "http-alt": 8080,
}
