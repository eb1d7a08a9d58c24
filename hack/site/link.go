package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// link is a link or a picture in a page.
type link struct {
	destination *[]byte // as in the source; rewrite replaces it
	isPicture   bool
}

// split returns the path of the target below the root of the repository, and the anchor. external links have no path.
func (l *link) split(p *page) (target, anchor string, external bool) {
	text := string(*l.destination)
	if strings.Contains(text, ":") {
		return "", "", true
	}
	target, anchor, _ = strings.Cut(text, "#")
	if target == "" {
		return p.source, anchor, false
	}
	return path.Join(path.Dir(p.source), target), anchor, false
}

// check returns an error if the target of the link does not exist, or is on another site without https.
func (l *link) check(s *site, p *page) error {
	text := string(*l.destination)
	target, anchor, external := l.split(p)
	if external {
		if !strings.HasPrefix(text, "https://") {
			return fmt.Errorf("%s: the link %s is not of https", p.source, text)
		}
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.root, target)); err != nil || strings.HasPrefix(target, "..") {
		return fmt.Errorf("%s: the link %s leads to no file", p.source, text)
	}
	if to := s.pages[target]; anchor != "" && (to == nil || !to.hasAnchor(anchor)) {
		return fmt.Errorf("%s: the link %s leads to no heading", p.source, text)
	}
	return nil
}

// rewrite makes the destination fit the site: pages have another name there, and files that are no pages stay on GitHub.
func (l *link) rewrite(s *site, p *page) {
	target, anchor, external := l.split(p)
	if external {
		return
	}
	to := s.pages[target]
	switch {
	case l.isPicture:
		s.pictures[target] = true
		target = relative(p.target(), target)
	case to == p:
		target = "" // the anchor is enough
	case to != nil:
		target = relative(p.target(), to.target())
	default:
		target = repository + "/blob/main/" + target // GitHub redirects folders
	}
	if anchor != "" {
		target += "#" + anchor
	}
	*l.destination = []byte(target)
}

// relative returns the link from a file of the site to another.
func relative(from, to string) string {
	up := strings.Count(path.Dir(from)+"/", "/")
	if path.Dir(from) == "." {
		up = 0
	}
	// A common folder is left out, so that the link is short.
	if dir := path.Dir(from); up > 0 && path.Dir(to) == dir {
		return path.Base(to)
	}
	return strings.Repeat("../", up) + to
}
