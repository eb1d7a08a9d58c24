package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/yuin/goldmark/ast"
)

// sectionTitles are the sections of the documentation, in their order.
var sectionTitles = []string{"Quick start", "Concepts", "How-to", "Reference", "Design"}

// section is a part of the documentation: a heading of the index, and the pages in the list below it.
type section struct {
	title   string
	entries []entry
}

// entry is a page in a section. The name is the text of its link in the index.
type entry struct{ name, source string }

// readIndex returns the sections of the index. A page is the first link of an item of a list.
func readIndex(index *page) (sections []section) {
	for n := index.tree.FirstChild(); n != nil; n = n.NextSibling() {
		switch n := n.(type) {
		case *ast.Heading:
			if n.Level == 2 {
				sections = append(sections, section{title: index.headings[headingNumber(n)].Text})
			}
		case *ast.List:
			for item := n.FirstChild(); item != nil && len(sections) > 0; item = item.NextSibling() {
				if l, ok := item.FirstChild().FirstChild().(*ast.Link); ok {
					source, _, _ := (&link{destination: &l.Destination}).split(index)
					last := &sections[len(sections)-1]
					last.entries = append(last.entries, entry{index.plain(l), source})
				}
			}
		}
	}
	return sections
}

// headingNumber returns the number of headings before a heading of the top level.
func headingNumber(n ast.Node) (number int) {
	for before := n.PreviousSibling(); before != nil; before = before.PreviousSibling() {
		if before.Kind() == ast.KindHeading {
			number++
		}
	}
	return number
}

// checkIndex returns an error for each page that is not in exactly one section, and if the sections are not those of sectionTitles.
func (s *site) checkIndex() (errs []error) {
	var titles []string
	sectionsOf := map[string]int{}
	for _, section := range s.sections {
		titles = append(titles, section.title)
		for _, e := range section.entries {
			sectionsOf[e.source]++
			if s.pages[e.source] == nil {
				errs = append(errs, fmt.Errorf("%s: %s is no page", indexPage, e.source))
			}
		}
	}
	if !slices.Equal(titles, sectionTitles) {
		errs = append(errs, fmt.Errorf("%s: the sections are %q, want %q", indexPage, titles, sectionTitles))
	}
	for source := range s.pages {
		if n := sectionsOf[source]; n != 1 && source != indexPage {
			errs = append(errs, fmt.Errorf("%s: %s is in %d sections, want one", indexPage, source, n))
		}
	}
	return errs
}

// checkReachable returns an error for each page to which no links in the text of pages lead from the home page.
func (s *site) checkReachable() (errs []error) {
	reached := map[string]bool{homePage: true}
	for waiting := []string{homePage}; len(waiting) > 0; waiting = waiting[1:] {
		p := s.pages[waiting[0]]
		for _, l := range p.links {
			if target, _, _ := l.split(p); s.pages[target] != nil && !reached[target] {
				reached[target] = true
				waiting = append(waiting, target)
			}
		}
	}
	for _, p := range s.sorted() {
		if !reached[p.source] {
			errs = append(errs, fmt.Errorf("%s: no link leads from %s to this page", p.source, homePage))
		}
	}
	return errs
}

// sorted returns the pages by source.
func (s *site) sorted() (pages []*page) {
	for _, source := range slices.Sorted(maps.Keys(s.pages)) {
		pages = append(pages, s.pages[source])
	}
	return pages
}
