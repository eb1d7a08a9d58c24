package main

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
)

// markdown reads pages as GitHub does. The comments in pages, which mark generated parts, stay in the HTML.
var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM), goldmark.WithRendererOptions(html.WithUnsafe()))

// page is a Markdown file.
type page struct {
	source   string // path below the root of the repository, with slashes
	text     []byte
	tree     ast.Node
	headings []heading // in their order
	links    []*link
}

// heading is a heading with its anchor.
type heading struct {
	Level        int
	Text, Anchor string
}

// findPages returns the Markdown files below root, but not those in folders of tests, tools and templates.
func findPages(root string) (sources []string, err error) {
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".github" || d.Name() == "bin" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(file) != ".md":
			return nil
		}
		source, err := filepath.Rel(root, file)
		sources = append(sources, filepath.ToSlash(source))
		return err
	})
	return sources, err
}

// parsePage parses a page, and gives its headings their anchors.
func parsePage(source string, content []byte) *page {
	p := &page{source: source, text: content, tree: markdown.Parser().Parse(text.NewReader(content))}
	used := map[string]int{}
	var titles []*ast.Heading
	// The function returns no error, so neither does Walk.
	_ = ast.Walk(p.tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) { //nolint:errcheck // see above
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			title := p.plain(n)
			anchor := slug(title)
			// GitHub numbers the later headings with the same text.
			if used[anchor]++; used[anchor] > 1 {
				anchor = fmt.Sprintf("%s-%d", anchor, used[anchor]-1)
			}
			p.headings = append(p.headings, heading{n.Level, title, anchor})
			n.SetAttributeString("id", []byte(anchor))
			titles = append(titles, n)
		case *ast.Link:
			p.links = append(p.links, &link{destination: &n.Destination})
		case *ast.Image:
			p.links = append(p.links, &link{destination: &n.Destination, isPicture: true})
		}
		return ast.WalkContinue, nil
	})
	for i, n := range titles {
		if n.Level == 1 {
			continue
		}
		toItself := ast.NewLink()
		toItself.Destination = []byte("#" + p.headings[i].Anchor)
		toItself.SetAttributeString("class", []byte("anchor"))
		toItself.AppendChild(toItself, ast.NewString([]byte("#")))
		n.AppendChild(n, toItself)
	}
	return p
}

// plain returns the text of a node, without markup.
func (p *page) plain(n ast.Node) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.Write(c.Segment.Value(p.text))
			if c.SoftLineBreak() {
				b.WriteByte(' ')
			}
		case *ast.String:
			b.Write(c.Value)
		default:
			b.WriteString(p.plain(c))
		}
	}
	return b.String()
}

// title is the first heading of the page.
func (p *page) title() string {
	if len(p.headings) == 0 {
		return p.source
	}
	return p.headings[0].Text
}

// target returns the path of the page in the site.
func (p *page) target() string {
	dir, name := path.Split(p.source)
	if name == "README.md" {
		return dir + "index.html"
	}
	return strings.TrimSuffix(p.source, ".md") + ".html"
}

// hasAnchor reports whether a heading of the page has the anchor.
func (p *page) hasAnchor(anchor string) bool {
	for _, h := range p.headings {
		if h.Anchor == anchor {
			return true
		}
	}
	return false
}

// notInSlug matches the characters that GitHub leaves out of an anchor.
var notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// slug returns the anchor that GitHub makes for a heading.
func slug(heading string) string {
	heading = strings.ToLower(strings.TrimSpace(heading))
	return strings.ReplaceAll(notInSlug.ReplaceAllString(heading, ""), " ", "-")
}

// separator matches a bar between two cells. A bar inside a cell has a backslash, in code too.
var separator = regexp.MustCompile(`(^|[^\\])\|`)

// checkTables returns an error if a row has more or fewer cells than the heading of its table: GitHub drops the further cells.
func (p *page) checkTables() error {
	bars, inCode := 0, false
	number := 0
	for line := range strings.Lines(string(p.text)) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			inCode = !inCode
		}
		if inCode || !strings.HasPrefix(line, "|") {
			bars = 0
			continue
		}
		n := len(separator.FindAllString(line, -1))
		if bars == 0 {
			bars = n
		}
		if n != bars {
			return fmt.Errorf("%s:%d: the row has %d cells, the heading of its table has %d", p.source, number, n-1, bars-1)
		}
	}
	return nil
}
