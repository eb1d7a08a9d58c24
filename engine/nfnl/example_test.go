package nfnl_test

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"

	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/engine/nfnl"
	"github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables/internal/test/lab"
)

// A batch creates two tables, a question lists the tables of the namespace, and a second batch fails.
func Example() {
	network, err := lab.New()
	if err != nil {
		log.Fatal(err)
	}
	defer network.Close()
	pod, err := network.Bare("pod")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := nfnl.Open(pod.NetNS())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	if err := create(conn, "first", "second"); err != nil {
		log.Fatal(err)
	}
	var m nfnl.Messages
	m.BeginNFT(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_INET, nfnl.Label{Op: "GETTABLE"})
	m.End()
	err = conn.Ask(&m, nfnl.NFTables|unix.NFT_MSG_NEWTABLE, func(a nfnl.Attrs) error {
		fmt.Println("table", a.Text(unix.NFTA_TABLE_NAME))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(create(conn, "third", "first"))
	// Output:
	// table first
	// table second
	// NEWTABLE first: file exists (attribute at byte 20)
}

// create creates tables in a single batch.
func create(conn *nfnl.Conn, names ...string) error {
	var m nfnl.Messages
	m.BeginBatch(nfnl.AnyGeneration)
	for _, name := range names {
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		m.BeginNFT(unix.NFT_MSG_NEWTABLE, flags, unix.NFPROTO_INET, nfnl.Label{Op: "NEWTABLE", Object: name})
		m.Text(unix.NFTA_TABLE_NAME, name)
		m.End()
	}
	m.EndBatch()
	return conn.Do(&m, nil)
}
