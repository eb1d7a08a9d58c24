package main

import (
	"bytes"
	_ "embed"
	"html/template"
)

//go:embed layout.html
var layoutText string

//go:embed style.css
var style []byte

var layout = template.Must(template.New("layout").Parse(layoutText))

// view has the values of the layout for a page.
type view struct {
	Title, Style, Home, Index, Source string
	Sections                          []viewSection
	Contents                          []heading // the table of contents: headings of level 2 and 3
	Body                              template.HTML
	Previous, Next                    *viewEntry // the neighbors in the order of the index
}

type viewSection struct {
	Title   string
	Entries []viewEntry
}

// viewEntry is a link to a page.
type viewEntry struct {
	Name, Link string
	IsCurrent  bool
}

// writePages writes all pages and the style sheet.
func (s *site) writePages(dir string) error {
	for _, p := range s.pages {
		var body, out bytes.Buffer
		if err := markdown.Renderer().Render(&body, p.text, p.tree); err != nil {
			return err
		}
		v := s.view(p)
		v.Body = template.HTML(body.String())
		if err := layout.Execute(&out, v); err != nil {
			return err
		}
		if err := write(dir, p.target(), out.Bytes()); err != nil {
			return err
		}
	}
	return write(dir, "style.css", style)
}

// view returns the values for a page, without its body.
func (s *site) view(p *page) view {
	from := p.target()
	v := view{
		Title: p.title(), Style: relative(from, "style.css"), Home: relative(from, s.pages[homePage].target()),
		Index: relative(from, s.pages[indexPage].target()), Source: repository + "/blob/main/" + p.source,
	}
	for _, h := range p.headings {
		if h.Level == 2 || h.Level == 3 {
			v.Contents = append(v.Contents, h)
		}
	}
	var last *viewEntry
	for _, section := range s.sections {
		shown := viewSection{Title: section.title}
		for _, e := range section.entries {
			link := viewEntry{e.name, relative(from, s.pages[e.source].target()), e.source == p.source}
			shown.Entries = append(shown.Entries, link)
			switch {
			case link.IsCurrent:
				v.Previous = last
			case last != nil && last.IsCurrent:
				v.Next = &link
			}
			last = &link
		}
		v.Sections = append(v.Sections, shown)
	}
	return v
}
