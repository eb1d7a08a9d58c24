package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// repository is the address of the sources, for links to files that are no pages.
const repository = "https://github.com/k8snetworkplumbingwg/multi-networkpolicy-nftables"

// Pages with a role of their own.
const (
	homePage  = "README.md"
	indexPage = "docs/README.md"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/site DIR")
		os.Exit(2)
	}
	if err := build(".", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// site is the whole documentation.
type site struct {
	root     string           // folder of the repository
	pages    map[string]*page // by source
	sections []section        // in the order of the index
	pictures map[string]bool  // sources of the pictures that pages show
}

// build reads the pages below root and writes the site into a folder. Its error lists all faults, each on a line.
func build(root, dir string) error {
	s, err := read(root)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	// The links are rewritten last, because the checks name them as they are in the source.
	for _, p := range s.pages {
		for _, l := range p.links {
			l.rewrite(s, p)
		}
	}
	if err := s.writePages(dir); err != nil {
		return err
	}
	for picture := range s.pictures {
		data, err := os.ReadFile(filepath.Join(root, picture))
		if err != nil {
			return err
		}
		if err := write(dir, picture, data); err != nil {
			return err
		}
	}
	return nil
}

// read parses all pages and the index.
func read(root string) (*site, error) {
	s := &site{root: root, pages: map[string]*page{}, pictures: map[string]bool{}}
	sources, err := findPages(root)
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		text, err := os.ReadFile(filepath.Join(root, source))
		if err != nil {
			return nil, err
		}
		s.pages[source] = parsePage(source, text)
	}
	index, home := s.pages[indexPage], s.pages[homePage]
	if index == nil || home == nil {
		return nil, fmt.Errorf("%s or %s is missing", homePage, indexPage)
	}
	s.sections = readIndex(index)
	return s, nil
}

// check returns all faults of the pages.
func (s *site) check() error {
	errs := s.checkIndex()
	for _, p := range s.sorted() {
		for _, l := range p.links {
			errs = append(errs, l.check(s, p))
		}
		errs = append(errs, p.checkTables())
	}
	return errors.Join(append(errs, s.checkReachable()...)...)
}

// write writes a file of the site, and the folders above it.
func write(dir, name string, data []byte) error {
	if err := os.MkdirAll(filepath.Join(dir, path.Dir(name)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), data, 0o644)
}
